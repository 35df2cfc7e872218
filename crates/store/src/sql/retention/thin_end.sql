-- The copy takes the place of these ranges' partitions.
drop table {partitions};
alter table history_left rename to history_{no};
alter index history_left_pkey rename to history_{no}_pkey;
alter table history attach partition history_{no} for values from (minvalue) to ({ends_before});
alter table history_{no} drop constraint history_left_end;
delete from history_range where range_no < {no};
update history_range set thinned = true where range_no = {no}
