-- One more range, ahead of those that are there. Attaching an empty table holds nobody up.
create table history_{no} (like history including all);
alter table history attach partition history_{no} for values from ({starts_at}) to ({ends_before});
insert into history_range (range_no, ends_before) values ({no}, {ends_before})
