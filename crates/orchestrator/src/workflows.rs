//! Definitions: loaded from a folder at start, stored by version, and read back for runs that another replica started.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longtake_engine::definition::{Problem, Version, Workflow};
use longtake_engine::time::Timestamp;
use longtake_store::Reads;

/// A folder of definitions cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WorkflowsError {
    /// The folder or a file in it cannot be read.
    #[error("{path}: {error}: name a folder of workflow definitions with --workflows")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Definitions have problems: all of them, in all files.
    #[error("workflow definitions have problems:\n{0}")]
    Invalid(String),
    /// Two files define the same workflow.
    #[error("{second} defines workflow {name}, and so does {first}: rename one or remove it")]
    Twice {
        /// The workflow.
        name: String,
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A stored definition does not parse.
    #[error("stored version {version} of a workflow cannot be read by this binary: {why}")]
    Stored {
        /// Which.
        version: Version,
        /// Why.
        why: String,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] longtake_store::Error),
}

/// Every definition that was needed so far. Clones share it.
#[derive(Clone)]
pub struct Workflows {
    reads: Reads,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    versions: HashMap<Version, Arc<Workflow>>,
    /// What new runs use, by name, and since when it is loaded.
    current: BTreeMap<String, (Arc<Workflow>, Timestamp)>,
}

impl Workflows {
    /// Nothing known yet.
    pub fn new(reads: Reads) -> Workflows {
        Workflows { reads, known: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Parses every `*.toml` of a folder and stores what is new. Refuses the folder as a whole if anything in it is wrong.
    pub async fn load(&self, folder: &Path) -> Result<usize, WorkflowsError> {
        let parsed = parse_folder(folder)?;
        for workflow in &parsed {
            let at = self.reads.save_workflow(&workflow.version, &workflow.name, &workflow.source).await?;
            let mut known = self.lock();
            known.versions.insert(workflow.version, workflow.clone());
            known.current.insert(workflow.name.clone(), (workflow.clone(), at));
        }
        Ok(parsed.len())
    }

    /// What new runs of this name use.
    pub fn current(&self, name: &str) -> Option<Arc<Workflow>> {
        self.lock().current.get(name).map(|(workflow, _)| workflow.clone())
    }

    /// The current version of every workflow, by name, and since when it is loaded.
    pub fn all(&self) -> Vec<(Arc<Workflow>, Timestamp)> {
        self.lock().current.values().cloned().collect()
    }

    /// A version, from memory or from the database.
    pub async fn version(&self, version: Version) -> Result<Option<Arc<Workflow>>, WorkflowsError> {
        if let Some(known) = self.lock().versions.get(&version) {
            return Ok(Some(known.clone()));
        }
        let Some(source) = self.reads.workflow_source(&version).await? else { return Ok(None) };
        let workflow = Workflow::parse(source.as_bytes())
            .map_err(|problems| WorkflowsError::Stored { version, why: listed(&problems, "") })?;
        let workflow = Arc::new(workflow);
        self.lock().versions.insert(version, workflow.clone());
        Ok(Some(workflow))
    }
}

fn parse_folder(folder: &Path) -> Result<Vec<Arc<Workflow>>, WorkflowsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| WorkflowsError::Unreadable { path, error }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    let mut problems = Vec::new();
    let mut by_name: BTreeMap<String, (PathBuf, Arc<Workflow>)> = BTreeMap::new();
    for path in files {
        let source = std::fs::read(&path).map_err(unreadable(&path))?;
        match Workflow::parse(&source) {
            Err(found) => problems.push(listed(&found, &format!("{}: ", path.display()))),
            Ok(workflow) => {
                let name = workflow.name.clone();
                if let Some((first, _)) = by_name.get(&name) {
                    return Err(WorkflowsError::Twice { name, first: first.clone(), second: path });
                }
                by_name.insert(name, (path, Arc::new(workflow)));
            }
        }
    }
    if !problems.is_empty() {
        return Err(WorkflowsError::Invalid(problems.join("\n")));
    }
    Ok(by_name.into_values().map(|(_, workflow)| workflow).collect())
}

fn listed(problems: &[Problem], before: &str) -> String {
    problems.iter().map(|problem| format!("{before}{problem}")).collect::<Vec<_>>().join("\n")
}

impl From<WorkflowsError> for crate::errors::Refused {
    fn from(error: WorkflowsError) -> crate::errors::Refused {
        tracing::error!(%error, "a workflow cannot be read");
        match error {
            WorkflowsError::Store(error) => error.into(),
            WorkflowsError::Unreadable { .. }
            | WorkflowsError::Invalid(_)
            | WorkflowsError::Twice { .. }
            | WorkflowsError::Stored { .. } => crate::errors::Refused::new(
                longtake_proto::v1::Reason::Internal,
                "a stored workflow cannot be read by this server: its log says why",
            ),
        }
    }
}
