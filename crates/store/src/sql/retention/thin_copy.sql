-- The history of the runs that are left, as far as it went when they were read. It is only ever added to.
insert into history_left (run_no, first_event, at, events)
select h.run_no, h.first_event, h.at, h.events
from unnest($1::bigint[], $2::bigint[]) as kept (run_no, version)
-- A subquery of its own: by key for each run, in the one partition that it is in.
cross join lateral (
    select * from history where history.run_no = kept.run_no and history.first_event <= kept.version offset 0
) as h
