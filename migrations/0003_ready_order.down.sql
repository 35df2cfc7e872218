drop index ready_order;
create index ready_order on ready (queue, priority desc, since, run_no, step);
delete from schema_version where version = 3;
