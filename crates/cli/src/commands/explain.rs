//! `longtake explain`.

use clap::Args;
use longtake_proto::convert::json_from_struct;
use longtake_proto::v1::{ExplainRunRequest, ExplainRunResponse, SuggestedAction};

use crate::args::{Global, RunArg};
use crate::call::CallFailed;
use crate::connect::{Server, ServerUrl};
use crate::exit::Exit;
use crate::format;
use crate::output::{self, printable};

/// `longtake explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    run: RunArg,
}

pub(super) async fn execute(args: ExplainArgs, global: &Global) -> anyhow::Result<Exit> {
    let run_id = args.run.id();
    let server = Server::connect(&global.server).await?;
    let answer = server.runs().explain_run(ExplainRunRequest { run_id: run_id.clone() }).await;
    let answer =
        answer.map_err(|status| CallFailed::new(format!("explain run {run_id}"), status))?.into_inner();
    if global.json {
        output::json(&answer)?;
    } else {
        for line in lines(&answer, &format!("{}{}", format::program(), server.url.flag()), &server.url) {
            output::line(&line)?;
        }
    }
    Ok(Exit::Done)
}

/// `longtake` is how this program is started to reach `server`.
fn lines(answer: &ExplainRunResponse, longtake: &str, server: &ServerUrl) -> Vec<String> {
    let mut lines = vec![printable(&answer.summary)];
    for step in &answer.steps {
        lines.push(format!("  {}", printable(&step.sentence)));
        lines.extend(step.actions.iter().flat_map(|action| advice(action, longtake, server)));
    }
    lines.extend(answer.actions.iter().flat_map(|action| advice(action, longtake, server)));
    lines
}

/// What could be done, with the command that does it.
fn advice(action: &SuggestedAction, longtake: &str, server: &ServerUrl) -> Vec<String> {
    let mut lines = vec![format!("  → {}", printable(&action.sentence))];
    if action.method.is_empty() {
        return lines;
    }
    let request = action.request.clone().map(json_from_struct).unwrap_or_default();
    let run = request.get("run_id").and_then(|id| id.as_str()).unwrap_or_default();
    let own = match action.method.rsplit('/').next() {
        Some("CancelRun") => Some("cancel"),
        Some("PauseRun") => Some("pause"),
        Some("ResumeRun") => Some("resume"),
        Some("RetryRun") => Some("retry"),
        _ => None,
    };
    lines.push(match own {
        Some(command) if request.len() == 1 => {
            format!("      {longtake} {command} {}", printable(run))
        }
        _ => {
            let request = serde_json::Value::Object(request).to_string().replace('\'', "'\\''");
            format!(
                "      grpcurl -plaintext -d '{request}' {} {}",
                server.authority(),
                printable(&action.method)
            )
        }
    });
    lines
}

#[cfg(test)]
mod tests {
    use longtake_proto::convert::struct_from_json;
    use longtake_proto::v1::StepExplanation;
    use serde_json::json;

    use super::*;

    #[test]
    fn advice_is_ready_to_paste() {
        let action = |sentence: &str, method: &str, request| SuggestedAction {
            sentence: sentence.into(),
            method: method.into(),
            request: struct_from_json(request),
        };
        let answer = ExplainRunResponse {
            summary: "paused: looks odd".into(),
            steps: vec![StepExplanation {
                sentence: "video waits for an executor".into(),
                actions: vec![action("start one", "", json!({}))],
                ..Default::default()
            }],
            actions: vec![
                action("resume it", "longtake.v1.RunService/ResumeRun", json!({"run_id": "r"})),
                action(
                    "give it time",
                    "longtake.v1.RunService/ExtendDeadline",
                    json!({"run_id": "r", "target": "TARGET_RUN"}),
                ),
            ],
            ..Default::default()
        };
        assert_eq!(
            lines(&answer, "bin/longtake --server 127.0.0.1:7", &ServerUrl::local(7)),
            [
                "paused: looks odd",
                "  video waits for an executor",
                "  → start one",
                "  → resume it",
                "      bin/longtake --server 127.0.0.1:7 resume r",
                "  → give it time",
                "      grpcurl -plaintext -d '{\"run_id\":\"r\",\"target\":\"TARGET_RUN\"}' 127.0.0.1:7 \
                 longtake.v1.RunService/ExtendDeadline",
            ]
        );
    }
}
