,
progressed as (
    insert into progress (run_no, step, attempt, done, total, message, at)
    select p.run_no, p.step, p.attempt, p.done, p.total, p.message, clock.now
    from clock, unnest($4::bigint[], $5::smallint[], $6::integer[], $7::bigint[], $8::bigint[], $9::text[])
        as p (run_no, step, attempt, done, total, message)
    on conflict (run_no, step) do update
    set attempt = excluded.attempt, done = excluded.done, total = excluded.total, message = excluded.message, at = excluded.at
    where progress.attempt <= excluded.attempt
),
-- Sessions of replicas that are gone. Not in a round that moves sessions: a row is changed once in a statement.
left_behind as materialized (
    select session_id
    from session, clock
    where not exists (select from credited)
        and replica <> $2::uuid
        and not exists (
            select from replica
            where replica.replica_id = session.replica and not gone and seen_at > now - interval '15 s'
        )
    order by until
    limit 1000
    for update of session skip locked
),
adopted as (
    update session set replica = $2::uuid
    where session_id = any (array(select session_id from left_behind))
    returning session_id, executor, until, ended
),
found as materialized (
    select session_id, executor, until, ended from adopted
    union all
    select session_id, executor, until, ended from session, clock
    where replica = $2::uuid and ($10::boolean or $16::boolean and (ended or until <= now))
)
-- Kinds: 0 the time, and whether an outage was credited; 1 how many others were present lately, 2 an outage, 3 a timer, 4 a queue,
-- 5 a run, 6 a session.
select 0 as kind, null::uuid as id, now as at, 0::bigint as number, 0::smallint as step,
    null::text as text, exists (select from credited) as flag
from clock
union all
select 1, null, null, count(*), 0::smallint, null, false
from replica, clock
where replica_id <> $2::uuid and seen_at > now - interval '15 s'
union all
select 2, null, began, credit_us, 0::smallint, null, false
from outage, clock
where began > now - interval '31 days'
union all
select 3, (select run_id from run where run.run_no = due.run_no), due.due, due.kind, due.step, null, false
from (
    select run_no, kind, step, due
    from timer
    where due <= (select now from clock) + $11::bigint * interval '1 microsecond'
    order by due
    limit 10000
) as due
union all
select 4, null, null, 0, 0::smallint, queue, false
from unnest($12::text[]) as asked (queue)
where (select true from ready where ready.queue = asked.queue limit 1)
union all
select 5, watched.run_id, null, 0, 0::smallint, null, false
from unnest($13::uuid[], $14::bigint[], $15::bigint[]) as watched (run_id, run_no, version)
where (select version from run where run.run_no = watched.run_no) <> watched.version
union all
select 6, session_id, until, 0, 0::smallint, executor, ended
from found
