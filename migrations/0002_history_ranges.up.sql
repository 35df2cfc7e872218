-- History goes by ranges of runs' numbers, so that what is old is dropped and not deleted row by row. It holds nine tenths of
-- all bytes, and lanes only insert into it: an insert locks the one partition that it goes to, whatever the number of others.
-- Every other table is small beside it, is updated by lanes, and would cost every write a look at every partition.
--
-- The table as it was becomes the first partition: nothing is copied, but it is read once to prove that no number lies beyond
-- its end. Servers that are up wait for that; where it takes longer than the five seconds that a lane waits, their writes fail.
-- Releases that know nothing of ranges serve on this schema: they never come to the end of a range, see `ends_before`.

create table history_range (
    range_no bigint primary key,
    ends_before bigint not null unique,
    began_at timestamptz,
    thinned boolean not null default false
);
comment on table history_range is
    'The partitions of history, each named after its range: it holds the runs whose numbers come before its end and after the end of the range before.';
comment on column history_range.ends_before is
    'Ten thousand million numbers after the one before: ranges are left when they are old, by moving the sequence on, and never full.';
comment on column history_range.began_at is 'When the numbers of new runs came to it; null as long as they have not.';
comment on column history_range.thinned is
    'Only the history of the runs that were left is there; it stands for every range before it, too.';

lock table history in access exclusive mode;

do $$
declare
    width constant bigint := 10000000000;
    present constant bigint := (select last_value / width from run_no);
begin
    execute format('alter table history rename to history_%s', present);
    execute format('alter index history_pkey rename to history_%s_pkey', present);
    execute format('create table history (like history_%s including all) partition by range (run_no)', present);
    execute format('alter table history attach partition history_%s for values from (minvalue) to (%s)',
        present, (present + 1) * width);
    insert into history_range (range_no, ends_before, began_at)
    values (present, (present + 1) * width, clock_timestamp());
    -- Two ahead: new runs need none of this to be made in time.
    for ahead in present + 1 .. present + 2 loop
        execute format('create table history_%s partition of history for values from (%s) to (%s)',
            ahead, ahead * width, (ahead + 1) * width);
        insert into history_range (range_no, ends_before) values (ahead, (ahead + 1) * width);
    end loop;
end
$$;
comment on table history is
    'What happened, one row per run and commit, never changed: longtake.v1.Event messages, each behind its length. Partitioned by history_range.';

-- Runs are removed by their numbers.
create index run_label_run on run_label (run_no);

insert into schema_version (version, oldest_binary) values (2, '0.1.0');
