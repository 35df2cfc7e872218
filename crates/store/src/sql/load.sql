-- Runs by id, and the heads of queues; all in one snapshot.
-- As in write.sql, no part joins a table with a list.
-- Kinds: 0 a run and where it stands, 1 a row of its history, 2 a checkpoint, 3 progress, 4 a ready step.
with
heads as materialized (
    select q.queue, h.run_no, h.step, h.priority, h.since,
        row_number() over (partition by q.queue order by h.priority desc, h.since, h.run_no, h.step) as place
    from unnest($2::text[], $3::bigint[], $5::integer[], $6::timestamptz[]) as q (queue, wanted, priority, since)
    cross join lateral (
        -- The first part comes first, and what fills the limit by itself leaves the second one alone. Each begins at its place
        -- in the index: rows that were taken before it are not gone over. Rows of one time come in any order.
        select run_no, step, priority, since
        from (
            (
                select run_no, step, priority, since
                from ready
                where ready.queue = q.queue and ready.priority = q.priority and ready.since >= q.since
                order by since
                limit q.wanted
            )
            union all
            (
                select run_no, step, priority, since
                from ready
                where ready.queue = q.queue and ready.priority < q.priority
                order by priority desc, since
                limit q.wanted
            )
        ) as parts
        limit q.wanted
    ) as h
),
wanted as materialized (
    select run_no from run_key where run_id = any ($1::uuid[])
)
select 0 as kind, run_no, run_id, version as number, 0::smallint as step, 0 as attempt, 0::bigint as done, 0::bigint as total,
    ended_at as at, (select workflow.version from workflow where workflow.workflow_no = run.workflow_no) as bytes, state as text, '' as more,
    spent, saved, attempts, step_states, lease_sessions
from run
where run_no = any (array(select run_no from wanted))
union all
select 1, h.run_no, null, h.first_event, 0::smallint, 0, 0, 0, null, h.events, '', '', 0, 0, null, null, null
from wanted
-- Run by run: only so is each looked for in its own partition alone.
cross join lateral (select run_no, first_event, events from history where history.run_no = wanted.run_no offset 0) as h
union all
select 2, run_no, null, sequence, step, attempt, done, total, at, null, data, artifacts, 0, 0, null, null, null
from checkpoint
where run_no = any (array(select run_no from wanted))
union all
select 3, run_no, null, 0, step, attempt, done, total, at, null, message, '', 0, 0, null, null, null
from progress
where $4::boolean and run_no = any (array(select run_no from wanted))
union all
select 4, run_no, (select run_id from run where run.run_no = heads.run_no), place, step, priority, 0, 0, since, null, queue,
    '', 0, 0, null, null, null
from heads
