-- Forgets those of these sessions that have ended or whose time is up. What is asked of the row is asked again if a renewal
-- comes in between.
delete from session
where session_id = any ($2::uuid[]) and (ended or until < coalesce($1::timestamptz, clock_timestamp()))
