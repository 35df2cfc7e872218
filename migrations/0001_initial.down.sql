drop table schema_version, current_workflow, workflow, run_key, run, open_run, run_label, history, checkpoint, progress,
    ready, timer, session, replica, outage;
