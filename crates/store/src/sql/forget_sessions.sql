-- Forgets those of the sessions whose time is up, or that have ended, and that hold no lease. The row's own condition is
-- checked again if a renewal comes in between.
with held as materialized (
    select held.session_id
    from open_run
    -- A subquery of its own, so that the open runs are walked through and the others never.
    cross join lateral (
        select run_id, lease_sessions from run where run.run_no = open_run.run_no offset 0
    ) as run
    cross join lateral unnest(run.lease_sessions) as held (session_id)
    where run.lease_sessions && $2::uuid[]
)
delete from session
where session_id = any ($2::uuid[])
    and (ended or until < coalesce($1::timestamptz, clock_timestamp()))
    and (session_id in (select session_id from held)) is not true
