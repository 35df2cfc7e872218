-- A lane's batch as one statement of named parts; lines between --[x and --] are only there if the batch has such rows. Two parts carry the fences, `created` (no run has this id) and `updated`
-- (the run is at the version that was decided on); every other row comes from what these returned, so that a lost fence
-- writes nothing. Parts share one snapshot and do not see each other's rows.
--
-- Rows beside a run name it by `run`: its number or, for the k-th new run, -k.
--
-- No part joins a table with a list: the planner guesses ten rows for a list, finds that it would be quicker to walk through
-- a table that was small when it last looked, and keeps that plan while the table grows. `= any (array)` and a subquery by
-- key leave it no choice but the index, and `(x in (select …)) is true` none but a hash. What belongs to a changed run is
-- found in the arrays by its place in $23, the ascending list of their numbers.
with
no_run as (
    select null::uuid as run_id, null::bigint as run_no where false
)
--[new
, fresh as materialized (
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
)
, created as (
    insert into run_key (run_id, run_no, tenant, content_hash)
    select run_id, run_no, tenant, content_hash from fresh
    on conflict (run_id) do nothing
    returning run_id, run_no
)
, born as materialized (
    select * from fresh where (run_no in (select run_no from created)) is true
)
, born_rows as (
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
)
, born_history as (
    insert into history (run_no, first_event, at, events)
    select run_no, 1, at, events from born
)
, born_open as (
    insert into open_run (run_no)
    select run_no from born where ended_at is null
)
--]
--[changed
, updated as (
    update run
    set state = ($29::text[])[width_bucket(run_no, $23::bigint[])],
        ended_at = ($30::timestamptz[])[width_bucket(run_no, $23)],
        spent = ($31::bigint[])[width_bucket(run_no, $23)],
        saved = ($32::bigint[])[width_bucket(run_no, $23)],
        version = ($28::bigint[])[width_bucket(run_no, $23)],
        attempts = ($20)[($33::integer[])[width_bucket(run_no, $23)]:($34::integer[])[width_bucket(run_no, $23)]],
        step_states = ($21)[($33)[width_bucket(run_no, $23)]:($34)[width_bucket(run_no, $23)]],
        lease_sessions = ($22)[($35::integer[])[width_bucket(run_no, $23)]:($36::integer[])[width_bucket(run_no, $23)]]
    where run_no = any ($23)
        and version = ($24::bigint[])[width_bucket(run_no, $23)]
        and coalesce(($25::timestamptz[])[width_bucket(run_no, $23)] <= coalesce($1::timestamptz, clock_timestamp()), true)
    returning run_id, run_no, width_bucket(run_no, $23) as place, ended_at is null as is_open
)
, updated_history as (
    insert into history (run_no, first_event, at, events)
    select run_no, first_event, at, events
    from unnest($23, $27::bigint[], $37::timestamptz[], $38::bytea[]) as c (run_no, first_event, at, events)
    where (run_no in (select run_no from updated)) is true
)
--]
--[ended
, closed as (
    delete from open_run
    where run_no = any (array(select run_no from updated where ($26::boolean[])[place] and not is_open))
)
, reopened as (
    insert into open_run (run_no)
    select run_no from updated where is_open and not ($26)[place]
)
--]
, held as (
    select run_id, run_no from no_run
--[new
    union all
    select run_id, run_no from created
--]
--[changed
    union all
    select run_id, run_no from updated
--]
)
--[beside
, numbers as materialized (
    select array(
        select run_no from no_run
--[new
        union all
        select run_no from fresh
--]
        order by run_no
    ) as new
)
, labelled as (
    insert into run_label (key, value, run_no)
    select key, value, run_no
    from (
        select (select new from numbers)[-l.run] as run_no, l.key, l.value
        from unnest($39::integer[], $40::text[], $41::text[]) as l (run, key, value)
    ) as l
    where (run_no in (select run_no from held)) is true
)
, readied as (
    insert into ready (run_no, step, queue, priority, since)
    select run_no, step, queue, priority, since
    from (
        select case when r.run > 0 then r.run else (select new from numbers)[-r.run] end as run_no,
            r.step, r.queue, r.priority, r.since
        from unnest($42::bigint[], $43::smallint[], $44::text[], $45::integer[], $46::timestamptz[])
            as r (run, step, queue, priority, since)
    ) as r
    where (run_no in (select run_no from held)) is true
    on conflict (run_no, step) do update set queue = excluded.queue, priority = excluded.priority, since = excluded.since
)
, unreadied as (
    delete from ready
    where run_no = any (array(
            select run_no from unnest($47::bigint[]) as r (run_no) where (run_no in (select run_no from held)) is true
        ))
        and ((run_no, step) in (select run_no, step from unnest($47, $48::smallint[]) as r (run_no, step))) is true
)
, timed as (
    insert into timer (run_no, kind, step, due)
    select run_no, kind, step, due
    from (
        select case when t.run > 0 then t.run else (select new from numbers)[-t.run] end as run_no, t.kind, t.step, t.due
        from unnest($49::bigint[], $50::smallint[], $51::smallint[], $52::timestamptz[]) as t (run, kind, step, due)
    ) as t
    where (run_no in (select run_no from held)) is true
    on conflict (run_no, kind, step) do update set due = excluded.due
)
, untimed as (
    delete from timer
    where run_no = any (array(
            select run_no from unnest($53::bigint[]) as t (run_no) where (run_no in (select run_no from held)) is true
        ))
        and (
            (run_no, kind, step) in (
                select run_no, kind, step from unnest($53, $54::smallint[], $55::smallint[]) as t (run_no, kind, step)
            )
        ) is true
)
, checkpointed as (
    insert into checkpoint (run_no, step, attempt, sequence, done, total, at, data, artifacts)
    select run_no, step, attempt, sequence, done, total, at, data, artifacts
    from unnest(
        $56::bigint[], $57::smallint[], $58::integer[], $59::bigint[], $60::bigint[], $61::bigint[], $62::timestamptz[],
        $63::text[], $64::text[]
    ) as p (run_no, step, attempt, sequence, done, total, at, data, artifacts)
    where (run_no in (select run_no from held)) is true
    on conflict (run_no, step) do update
    set attempt = excluded.attempt, sequence = excluded.sequence, done = excluded.done, total = excluded.total,
        at = excluded.at, data = excluded.data, artifacts = excluded.artifacts
    where (excluded.attempt, excluded.sequence) > (checkpoint.attempt, checkpoint.sequence)
)
--]
--[sessions
, renewed as (
    insert into session (session_id, executor, replica, until)
    select session_id, executor, $2::uuid, coalesce($1::timestamptz, clock_timestamp()) + lasts_us * interval '1 microsecond'
    from unnest($65::uuid[], $66::text[], $67::bigint[]) as s (session_id, executor, lasts_us)
    on conflict (session_id) do update
    set until = excluded.until, replica = excluded.replica
    where not session.ended
    returning session_id, until
)
--]
--[sessions
select session_id as id, null::bigint as run_no, until as time from renewed
union all
--]
select run_id as id, run_no, null::timestamptz as time from held
union all
select null, null, coalesce($1::timestamptz, clock_timestamp())
