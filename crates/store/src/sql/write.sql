-- A lane's batch as one statement of named parts. Two parts carry the fences, `created` (no run has this id) and `updated`
-- (the run is at the version that was decided on); every other row comes from what these returned, so that a lost fence
-- writes nothing. Parts share one snapshot and do not see each other's rows.
--
-- Rows beside a run name it by `run`: its number or, for the k-th new run, -k.
--
-- `(x in (select …)) is true` is a hashed lookup whatever the planner is told; as a plain condition it would become a join,
-- and with the lane's settings a nested loop over all pairs.
with
fresh as materialized (
    select nextval('run_no') as run_no, f.*
    from unnest(
        $3::uuid[], $4::text[], $5::bytea[], $6::bytea[], $7::integer[], $8::timestamptz[],
        $9::bigint[], $10::text[], $11::timestamptz[], $12::bigint[], $13::bigint[],
        $14::integer[], $15::integer[], $16::integer[], $17::integer[], $18::timestamptz[], $19::bytea[]
    ) as f (
        run_id, tenant, content_hash, workflow, priority, created_at,
        version, state, ended_at, spent, saved,
        step_from, step_to, lease_from, lease_to, at, events
    )
),
created as (
    insert into run_key (run_id, run_no, tenant, content_hash)
    select run_id, run_no, tenant, content_hash from fresh
    on conflict (run_id) do nothing
    returning run_id, run_no
),
born as materialized (
    select * from fresh where (run_no in (select run_no from created)) is true
),
born_rows as (
    insert into run (
        run_no, run_id, created_at, workflow_no, priority, tenant,
        state, ended_at, saved, spent, version, attempts, step_states, lease_sessions
    )
    select
        run_no, run_id, created_at,
        (select workflow_no from workflow where workflow.version = born.workflow), priority, tenant,
        state, ended_at, saved, spent, version,
        ($20::integer[])[step_from:step_to], ($21::smallint[])[step_from:step_to], ($22::uuid[])[lease_from:lease_to]
    from born
),
updated as (
    update run
    set state = c.state, ended_at = c.ended_at, saved = c.saved, spent = c.spent, version = c.version,
        attempts = ($20::integer[])[c.step_from:c.step_to],
        step_states = ($21::smallint[])[c.step_from:c.step_to],
        lease_sessions = ($22::uuid[])[c.lease_from:c.lease_to]
    from unnest(
        $23::uuid[], $24::bigint[], $25::bigint[], $26::timestamptz[], $27::boolean[], $28::bigint[],
        $29::bigint[], $30::text[], $31::timestamptz[], $32::bigint[], $33::bigint[],
        $34::integer[], $35::integer[], $36::integer[], $37::integer[], $38::timestamptz[], $39::bytea[]
    ) as c (
        run_id, run_no, expected, not_before, was_open, first_event,
        version, state, ended_at, spent, saved,
        step_from, step_to, lease_from, lease_to, at, events
    )
    where run.run_no = c.run_no
        and run.version = c.expected
        and (c.not_before is null or c.not_before <= coalesce($1::timestamptz, clock_timestamp()))
    returning c.run_id, run.run_no, c.first_event, c.at, c.events, c.was_open, c.ended_at is null as is_open
),
held as (
    select run_id, run_no from created
    union all
    select run_id, run_no from updated
),
remembered as (
    insert into history (run_no, first_event, at, events)
    select run_no, 1, at, events from born
    union all
    select run_no, first_event, at, events from updated
),
closed as (
    delete from open_run using updated where open_run.run_no = updated.run_no and was_open and not is_open
),
opened as (
    insert into open_run (run_no)
    select run_no from born where ended_at is null
    union all
    select run_no from updated where is_open and not was_open
),
numbers as materialized (
    select array(select run_no from fresh order by run_no) as new
),
labelled as (
    insert into run_label (key, value, run_no)
    select key, value, run_no
    from (
        select (select new from numbers)[-l.run] as run_no, l.key, l.value
        from unnest($40::integer[], $41::text[], $42::text[]) as l (run, key, value)
    ) as l
    where (run_no in (select run_no from held)) is true
),
readied as (
    insert into ready (run_no, step, queue, priority, since)
    select run_no, step, queue, priority, since
    from (
        select case when r.run > 0 then r.run else (select new from numbers)[-r.run] end as run_no,
            r.step, r.queue, r.priority, r.since
        from unnest($43::bigint[], $44::smallint[], $45::text[], $46::integer[], $47::timestamptz[])
            as r (run, step, queue, priority, since)
    ) as r
    where (run_no in (select run_no from held)) is true
    on conflict (run_no, step) do update set queue = excluded.queue, priority = excluded.priority, since = excluded.since
),
unreadied as (
    delete from ready
    using unnest($48::bigint[], $49::smallint[]) as r (run_no, step)
    where ready.run_no = r.run_no and ready.step = r.step
        and (r.run_no in (select run_no from updated)) is true
),
timed as (
    insert into timer (run_no, kind, step, due)
    select run_no, kind, step, due
    from (
        select case when t.run > 0 then t.run else (select new from numbers)[-t.run] end as run_no, t.kind, t.step, t.due
        from unnest($50::bigint[], $51::smallint[], $52::smallint[], $53::timestamptz[]) as t (run, kind, step, due)
    ) as t
    where (run_no in (select run_no from held)) is true
    on conflict (run_no, kind, step) do update set due = excluded.due
),
untimed as (
    delete from timer
    using unnest($54::bigint[], $55::smallint[], $56::smallint[]) as t (run_no, kind, step)
    where timer.run_no = t.run_no and timer.kind = t.kind and timer.step = t.step
        and (t.run_no in (select run_no from updated)) is true
),
checkpointed as (
    insert into checkpoint (run_no, step, attempt, sequence, done, total, at, data, artifacts)
    select run_no, step, attempt, sequence, done, total, at, data, artifacts
    from unnest(
        $57::bigint[], $58::smallint[], $59::integer[], $60::bigint[], $61::bigint[], $62::bigint[], $63::timestamptz[],
        $64::text[], $65::text[]
    ) as p (run_no, step, attempt, sequence, done, total, at, data, artifacts)
    where (run_no in (select run_no from updated)) is true
    on conflict (run_no, step) do update
    set attempt = excluded.attempt, sequence = excluded.sequence, done = excluded.done, total = excluded.total,
        at = excluded.at, data = excluded.data, artifacts = excluded.artifacts
    where (excluded.attempt, excluded.sequence) > (checkpoint.attempt, checkpoint.sequence)
),
renewed as (
    insert into session (session_id, executor, replica, until)
    select session_id, executor, $2::uuid, coalesce($1::timestamptz, clock_timestamp()) + lasts_us * interval '1 microsecond'
    from unnest($66::uuid[], $67::text[], $68::bigint[]) as s (session_id, executor, lasts_us)
    on conflict (session_id) do update
    set until = excluded.until, replica = excluded.replica
    where not session.ended
    returning session_id, until
)
select session_id as id, null::bigint as run_no, until as time from renewed
union all
select run_id, run_no, null from held
union all
select null, null, coalesce($1::timestamptz, clock_timestamp())
