-- The schema of Longtake. What each table is for is in its comment: \d+ shows it.
--
-- A run is `run_no` everywhere but in `run_key`. History is the only place that holds payloads; `run` is the fold of it
-- without them, and what every write is fenced by. There is no index on anything that changes, so that every update of
-- a run stays on its page.

create table schema_version (
    version integer primary key,
    oldest_binary text not null check (oldest_binary ~ '^[0-9]+\.[0-9]+\.[0-9]+$'),
    applied_at timestamptz not null default now()
);
comment on table schema_version is
    'Each migration and the oldest release of Longtake that may serve after it: binaries refuse only what excludes them.';

-- Definitions.

create table workflow (
    version bytea primary key check (octet_length(version) = 32),
    workflow_no integer not null generated always as identity unique,
    name text not null,
    source text not null,
    loaded_at timestamptz not null default clock_timestamp()
);
comment on table workflow is
    'Every version of a workflow that was ever loaded: runs are driven from here, whoever started them.';
comment on column workflow.version is 'SHA-256 of the source.';

create table current_workflow (
    name text primary key,
    version bytea not null references workflow
);
comment on table current_workflow is 'Which version new runs of a workflow use.';

-- Runs.

create sequence run_no as bigint;

create table run_key (
    run_id uuid primary key,
    run_no bigint not null,
    tenant text not null,
    content_hash bytea not null
);
alter sequence run_no owned by run_key.run_no;
comment on table run_key is
    'From a run''s id to its number, and the only fence of a creation: one request id makes one run.';
comment on column run_key.content_hash is 'SHA-256 of the request as sent: tells a repetition from a clash.';

-- What never changes stands first and what changes most last: WAL then holds only the end of an updated row. Constraints
-- are read anew by every statement, so there are few, and they are short.
create table run (
    run_no bigint primary key,
    run_id uuid not null,
    created_at timestamptz not null,
    workflow_no integer not null,
    priority integer not null,
    tenant text not null,
    state text not null,
    ended_at timestamptz,
    saved bigint not null,
    attempts integer[] not null,
    version bigint not null,
    spent bigint not null,
    step_states smallint[] not null,
    lease_sessions uuid[] not null,
    constraint run_state check (
        case when ended_at is null then state in ('RUNNING', 'PAUSED', 'STOPPING')
        else state in ('SUCCEEDED', 'FAILED', 'TIMED_OUT', 'CANCELLED') end
    ),
    constraint run_open_step check ((ended_at is null) = (4 >= any (step_states))),
    constraint run_steps check (
        cardinality(attempts) = cardinality(step_states) and 0 <= all (step_states) and 9 >= all (step_states)
    ),
    constraint run_leases check (
        cardinality(lease_sessions) =
            cardinality(array_positions(step_states, 2::smallint)) + cardinality(array_positions(step_states, 3::smallint))
        and array_position(lease_sessions, null) is null
    )
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
comment on table run is
    'Where each run stands: the fold of its history without payloads, and the version that every write to it is fenced by.';
comment on column run.workflow_no is 'Of the table workflow.';
comment on column run.state is 'An ended run has no open step, and any other run has one.';
comment on column run.saved is 'In nano-dollars.';
comment on column run.spent is 'In nano-dollars.';
comment on column run.version is 'The number of its last event.';
comment on column run.attempts is 'The latest attempt of each step, in the file''s order.';
comment on column run.step_states is
    '0 PENDING, 1 READY, 2 LEASED, 3 RUNNING, 4 BACKING_OFF, 5 SUCCEEDED, 6 SKIPPED, 7 FAILED, 8 TIMED_OUT, 9 CANCELLED.';
comment on column run.lease_sessions is 'Who holds the steps that are LEASED or RUNNING: one session for each, in their order.';

create table open_run (
    run_no bigint primary key
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
comment on table open_run is 'The runs that have not ended: what to look through for all that is under way.';

create table run_label (
    key text not null,
    value text not null,
    run_no bigint not null,
    primary key (key, value, run_no)
);
comment on table run_label is 'Labels of runs, for filters.';

create table history (
    run_no bigint not null,
    first_event bigint not null,
    at timestamptz not null,
    events bytea not null,
    primary key (run_no, first_event)
);
comment on table history is
    'What happened, one row per run and commit, never changed: longtake.v1.Event messages, each behind its length.';

create table checkpoint (
    run_no bigint not null,
    step smallint not null check (step between 0 and 63),
    attempt integer not null check (attempt > 0),
    sequence bigint not null check (sequence > 0),
    done bigint not null,
    total bigint not null,
    at timestamptz not null,
    data text not null,
    artifacts text not null,
    primary key (run_no, step)
) with (fillfactor = 70);
comment on table checkpoint is 'The newest checkpoint of each step, with its data; it never goes back.';
comment on column checkpoint.data is 'JSON, keys sorted.';
comment on column checkpoint.artifacts is 'JSON, keys sorted.';

create table progress (
    run_no bigint not null,
    step smallint not null check (step between 0 and 63),
    attempt integer not null check (attempt > 0),
    done bigint not null,
    total bigint not null,
    message text not null,
    at timestamptz not null,
    primary key (run_no, step)
) with (fillfactor = 70);
comment on table progress is 'How far running steps said they are, for people: nothing is decided on it.';

-- What waits.

create table ready (
    run_no bigint not null,
    step smallint not null check (step between 0 and 63),
    queue text not null,
    priority integer not null,
    since timestamptz not null,
    primary key (run_no, step)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
create index ready_order on ready (queue, priority desc, since, run_no, step);
comment on table ready is 'Steps that wait for an executor; each has its row for exactly as long as it is READY and its run RUNNING.';

create table timer (
    run_no bigint not null,
    kind smallint not null,
    step smallint not null,
    due timestamptz not null,
    primary key (run_no, kind, step),
    constraint timer_kind check (case when kind in (0, 1) then step between 0 and 63 else kind in (2, 3) and step = -1 end)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
create index timer_due on timer (due);
comment on table timer is 'What happens to a run when a time comes; each row is there for exactly as long as the run''s state asks for it.';
comment on column timer.kind is '0 a step''s backoff, 1 a step''s deadline, 2 the run''s deadline, 3 the end of a stop''s grace.';
comment on column timer.step is '-1 where the run is meant.';

-- Who is there.

create table session (
    session_id uuid primary key,
    executor text not null,
    replica uuid not null,
    until timestamptz not null,
    ended boolean not null default false
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table session is 'One life of each executor process; its leases end with it, and one that has ended never lives again.';
comment on column session.replica is 'The server process that looks after it.';

create table replica (
    replica_id uuid primary key,
    seen_at timestamptz not null,
    gone boolean not null default false
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
comment on table replica is 'Server processes, and when each was last present; written every few seconds.';
comment on column replica.gone is 'It stopped in good order: its sessions can be taken over at once.';

create table outage (
    began timestamptz primary key,
    credit_us bigint not null check (credit_us > 0)
);
comment on table outage is
    'Times without any server, and by how many microseconds the sessions and the clocks of attempts that lived then were moved.';

insert into schema_version (version, oldest_binary) values (1, '0.1.0');
