-- The runs in which these sessions hold leases.
select held.session_id, run.run_id
from open_run
-- A subquery of its own, so that the open runs are walked through and the others never.
cross join lateral (
    select run_id, lease_sessions from run where run.run_no = open_run.run_no offset 0
) as run
cross join lateral unnest(run.lease_sessions) as held (session_id)
where run.lease_sessions && $1::uuid[] and held.session_id = any ($1::uuid[])
group by held.session_id, run.run_id
