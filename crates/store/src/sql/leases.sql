-- Who holds leases in a page of the open runs: those of these sessions and, if asked, of sessions that are not known. The first
-- row says where the page ends, and how many runs it had.
with
page as materialized (
    select run_no from open_run where run_no > $3::bigint order by run_no limit $4::bigint
),
held as materialized (
    select held.session_id, run.run_id
    from page
    -- A subquery of its own: by key for each open run, and never through all runs.
    cross join lateral (
        select run_id, lease_sessions from run where run.run_no = page.run_no offset 0
    ) as run
    cross join lateral unnest(run.lease_sessions) as held (session_id)
)
select null::uuid as session_id, null::uuid as run_id, max(run_no) as last, count(*) as runs
from page
union all
select distinct session_id, run_id, null::bigint, null::bigint
from held
where (session_id in (select unnest($1::uuid[]))) is true
    or ($2::boolean and not exists (select from session where session.session_id = held.session_id))
