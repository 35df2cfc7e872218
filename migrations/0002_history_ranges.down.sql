-- History as one table again. It is copied: that takes time and space, and servers that are up wait.
lock table history in access exclusive mode;
create table history_whole (like history including all);
insert into history_whole select * from history;
drop table history;
alter table history_whole rename to history;
alter index history_whole_pkey rename to history_pkey;
comment on table history is
    'What happened, one row per run and commit, never changed: longtake.v1.Event messages, each behind its length.';
drop table history_range;
drop index run_label_run;
delete from schema_version where version = 2;
