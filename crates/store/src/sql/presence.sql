-- The presence of a replica, and the end of an outage: the parts that its start and each of its rounds have in common.
--
-- An outage is a time in which no replica was present: none that had not said goodbye was seen for 15 seconds. It begins with
-- the last presence of any. The first write of presence that finds it so credits it; replicas that come back at the same time
-- find the same beginning, and its primary key lets one of them through. A replica that starts ($3) was not present before.
--
-- Its length and five seconds more are given back, but what the outage before it covers with its five seconds is not given twice:
-- else a server that loses its connection every second would keep the sessions of the dead alive for as long as that goes on.
with
clock as materialized (
    select coalesce($1::timestamptz, clock_timestamp()) as now
),
before as materialized (
    select max(seen_at) as seen_at,
        coalesce(bool_or(not gone and seen_at > now - interval '15 s' and not ($3::boolean and replica_id = $2::uuid)), false)
            as present
    from replica, clock
),
uncovered as materialized (
    select seen_at, now + interval '5 s' as ends, greatest(seen_at, (
        select covered
        from (select began + credit_us * interval '1 microsecond' as covered from outage order by began desc limit 1) as last
        -- Later than it could be: the clock was set in between.
        where covered <= now + interval '5 s'
    )) as began
    from before, clock
    where seen_at is not null and not present
),
credited as (
    insert into outage (began, credit_us)
    select began, (extract(epoch from ends - began) * 1000000)::bigint
    from uncovered
    where ends > began
    on conflict (began) do nothing
    returning began, credit_us
),
moved as (
    update session
    set until = until + credit_us * interval '1 microsecond'
    from credited, uncovered
    where not ended and until > seen_at
),
present as (
    insert into replica (replica_id, seen_at)
    select $2::uuid, now from clock
    on conflict (replica_id) do update set seen_at = excluded.seen_at, gone = false
),
swept as (
    delete from replica using clock where seen_at < now - interval '1 day' and replica_id <> $2::uuid
)
