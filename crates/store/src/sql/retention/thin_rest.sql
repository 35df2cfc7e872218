-- What was added while the rest was copied: by runs that have changed, or that were being made when their range was left.
insert into history_left (run_no, first_event, at, events)
select h.run_no, h.first_event, h.at, h.events
from run
left join unnest($1::bigint[], $2::bigint[]) as kept (run_no, version) on kept.run_no = run.run_no
cross join lateral (
    select *
    from history
    where history.run_no = run.run_no and history.first_event > coalesce(kept.version, 0)
    offset 0
) as h
where run.run_no < $3::bigint and run.version is distinct from kept.version
