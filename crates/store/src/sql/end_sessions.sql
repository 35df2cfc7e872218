-- Ends those of the sessions whose time is up by the database's clock. Returns those that have ended now or before; one that
-- has no row was ended and forgotten.
with over as (
    update session
    set ended = true
    where session_id = any ($2::uuid[]) and not ended and until < coalesce($1::timestamptz, clock_timestamp())
    returning session_id
)
select asked.session_id
from unnest($2::uuid[]) as asked (session_id)
where (asked.session_id in (select session_id from over)) is true
    or not exists (select from session where session.session_id = asked.session_id and not session.ended)
