-- The runs in which these sessions hold leases.
select held.session_id, run.run_id
from open_run
join run using (run_no)
cross join lateral unnest(run.lease_sessions) as held (session_id)
where run.lease_sessions && $1::uuid[] and held.session_id = any ($1::uuid[])
group by held.session_id, run.run_id
