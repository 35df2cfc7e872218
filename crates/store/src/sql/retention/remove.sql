-- Removes those of a page of runs that ended longer ago than runs are kept, with all that belongs to them. One that a lane is
-- changing at the moment is passed over: it may be a retry, which opens it again. What was not passed over can only be changed
-- when this is over, and is not found then.
--
-- History stays, where nobody finds it, until its range is dropped; but in a range that was thinned it is removed, too.
with
horizon as materialized (
    select coalesce($1::timestamptz, clock_timestamp()) - $2::bigint * interval '1 microsecond' as at
),
page as materialized (
    select run_no, created_at, ended_at from run where run_no > $3::bigint order by run_no limit $4::bigint
),
over as materialized (
    select run_no
    from run
    where run_no = any (array(select run_no from page where ended_at < (select at from horizon)))
        and ended_at < (select at from horizon)
    for update skip locked
),
gone as (
    delete from run where run_no = any (array(select run_no from over)) returning run_no, run_id
),
keys as (
    delete from run_key where run_id = any (array(select run_id from gone))
),
labels as (
    delete from run_label where run_no = any (array(select run_no from gone))
),
checkpoints as (
    delete from checkpoint where run_no = any (array(select run_no from gone))
),
progressed as (
    delete from progress where run_no = any (array(select run_no from gone))
),
past as (
    delete from history
    where run_no = any (array(
        select run_no from gone where run_no < (select max(ends_before) from history_range where thinned)
    ))
)
-- The next page is worth a look if this one was full and had a run that is older than the horizon.
select (select count(*) from gone) as removed, max(run_no) as last,
    count(*) = $4::bigint and min(created_at) < (select at from horizon) as more
from page
