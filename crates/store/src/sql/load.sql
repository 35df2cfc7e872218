-- Runs by id, and the heads of queues with the runs that they belong to; all in one snapshot.
-- Kinds: 0 a run and where it stands, 1 a row of its history, 2 a checkpoint, 3 progress, 4 a ready step.
with
heads as materialized (
    select q.queue, h.run_no, h.step, h.place
    from unnest($2::text[], $3::bigint[]) as q (queue, wanted)
    cross join lateral (
        select run_no, step, row_number() over (order by priority desc, since, run_no, step) as place
        from ready
        where ready.queue = q.queue
        order by priority desc, since, run_no, step
        limit q.wanted
    ) as h
),
wanted as materialized (
    select run_no from run_key where run_id = any ($1::uuid[])
    union
    select run_no from heads
)
select 0 as kind, run_no, run_id, version as number, 0::smallint as step, 0 as attempt, 0::bigint as done, 0::bigint as total,
    ended_at as at, (select w.version from workflow as w where w.workflow_no = run.workflow_no) as bytes, state as text, '' as more,
    spent, saved, attempts, step_states, lease_sessions
from wanted join run using (run_no)
union all
select 1, run_no, null, first_event, 0::smallint, 0, 0, 0, null, events, '', '', 0, 0, null, null, null
from wanted join history using (run_no)
union all
select 2, run_no, null, sequence, step, attempt, done, total, at, null, data, artifacts, 0, 0, null, null, null
from wanted join checkpoint using (run_no)
union all
select 3, run_no, null, 0, step, attempt, done, total, at, null, message, '', 0, 0, null, null, null
from wanted join progress using (run_no)
where $4::boolean
union all
select 4, heads.run_no, run.run_id, heads.place, heads.step, 0, 0, 0, null, null, heads.queue, '', 0, 0, null, null, null
from heads join run using (run_no)
