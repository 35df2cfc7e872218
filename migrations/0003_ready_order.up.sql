-- The order of ready steps without the columns of their key: with them this index could be searched for runs, too, all of it for
-- each run. Where statistics know of no live row (all were taken, and a snapshot keeps them from being cleaned up) that seems as
-- quick as the key.
drop index ready_order;
create index ready_order on ready (queue, priority desc, since);

insert into schema_version (version, oldest_binary) values (3, '0.1.0');
