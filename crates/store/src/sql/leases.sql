-- Who holds leases in a page of the open runs: those of these sessions and, if asked, of sessions that are not known. The first
-- row says where the page ends, and how many runs it had.
--
-- In a deep backlog nearly every run holds nothing, and there may be a million. Where open runs are close together, all runs from the
-- page's first to its last are gone through in the order of their rows, which is ten times as quick as to look for each by its key.
with
page as materialized (
    select run_no from open_run where run_no > $3::bigint order by run_no limit $4::bigint
),
span as materialized (
    select min(run_no) as first, max(run_no) as last, count(*) as runs from page
),
held as materialized (
    select unnest(lease_sessions) as session_id, run_id
    from run
    where (select last - first < runs * 8 from span)
        and run_no >= (select first from span) and run_no <= (select last from span)
        and lease_sessions <> '{}'
    union all
    select held.session_id, run.run_id
    from page
    -- A subquery of its own: by key for each open run, and never through all runs.
    cross join lateral (
        select run_id, lease_sessions from run where run.run_no = page.run_no offset 0
    ) as run
    cross join lateral unnest(run.lease_sessions) as held (session_id)
    where not (select last - first < runs * 8 from span)
)
select null::uuid as session_id, null::uuid as run_id, last, runs
from span
union all
select distinct session_id, run_id, null::bigint, null::bigint
from held
where (session_id in (select unnest($1::uuid[]))) is true
    or ($2::boolean and not exists (select from session where session.session_id = held.session_id))
