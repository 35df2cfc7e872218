use object_store::memory::InMemory;

use super::*;
use crate::artifact::Kind;

const PLACE: Place<'_> = Place { run: "run-1", step: "video" };

fn label() -> Label {
    Label::new("text.md", Kind::Markdown)
}

/// A folder, and something that behaves like a bucket.
fn stores() -> (tempfile::TempDir, [ArtifactStore; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let local = ArtifactStore::open(folder.path().to_str().unwrap()).unwrap();
    let remote = ArtifactStore::over(Arc::new(InMemory::new()), "s3://bucket/pre");
    (folder, [local, remote])
}

async fn overwrite(store: &ArtifactStore, artifact: &Artifact, bytes: &'static [u8]) {
    let key = store.key(artifact).unwrap();
    store.backend.put(&key, bytes.into()).await.unwrap();
}

#[tokio::test]
async fn what_is_stored_is_found_under_its_hash() {
    let (_folder, stores) = stores();
    for store in stores {
        let artifact = store.put_bytes(PLACE, label(), "hello").await.unwrap();
        assert_eq!(artifact.size_bytes, 5);
        assert_eq!(artifact.uri, format!("{}/run-1/video/{}.md", store.root(), artifact.sha256));
        assert_eq!(store.put_bytes(PLACE, label(), "hello").await.unwrap(), artifact);
        store.verify(&artifact).await.unwrap();
        assert_eq!(store.read(&artifact, 5).await.unwrap(), "hello");
        assert!(store.read(&artifact, 4).await.is_err());
        let into = tempfile::tempdir().unwrap();
        let path = store.fetch(&artifact, into.path()).await.unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "hello");
    }
}

#[tokio::test]
async fn files_of_every_size_are_stored() {
    let (folder, stores) = stores();
    for size in [0, 1, PART_BYTES, PART_BYTES * 2 + 7] {
        let file = folder.path().join("file");
        std::fs::write(&file, vec![7; size]).unwrap();
        for store in &stores {
            let artifact = store.put_file(PLACE, label(), &file).await.unwrap();
            assert_eq!(artifact.size_bytes, size as u64);
            store.verify(&artifact).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_damaged_is_named_and_mended_by_storing_it_again() {
    let (_folder, stores) = stores();
    for store in stores {
        let artifact = store.put_bytes(PLACE, label(), "hello").await.unwrap();
        for bytes in [&b"hellO"[..], b"hell"] {
            overwrite(&store, &artifact, bytes).await;
            let error = store.verify(&artifact).await.unwrap_err();
            assert!(matches!(error, MediaError::ArtifactDamaged { .. }) && !error.retryable(), "{error}");
            assert!(error.to_string().contains("text.md"));
            store.put_bytes(PLACE, label(), "hello").await.unwrap();
            store.verify(&artifact).await.unwrap();
        }
        store.backend.delete(&store.key(&artifact).unwrap()).await.unwrap();
        let error = store.verify(&artifact).await.unwrap_err();
        assert!(matches!(error, MediaError::ArtifactMissing { .. }) && error.retryable(), "{error}");
    }
}

#[tokio::test]
async fn artifacts_of_other_storage_are_refused() {
    let (_folder, stores) = stores();
    for store in stores {
        let artifact = store.put_bytes(PLACE, label(), "hello").await.unwrap();
        let root = store.root();
        for uri in [
            "file:///etc/passwd".to_owned(),
            format!("{root}/../../etc/passwd"),
            format!("{root}/run-1/../../x"),
            format!("{root}evil/x"),
            root.to_owned(),
        ] {
            let error = store.verify(&Artifact { uri, ..artifact.clone() }).await.unwrap_err();
            assert!(matches!(error, MediaError::ArtifactForeign { .. }), "{error}");
        }
    }
}

#[test]
fn locations_that_make_no_sense_say_so() {
    for location in ["ftp://host/x", "file://host/share", "s3:///nobucket", "://"] {
        let error = ArtifactStore::open(location).unwrap_err();
        assert!(error.to_string().contains("LONGTAKE_ARTIFACTS"), "{location}: {error}");
    }
}

#[tokio::test]
async fn a_folder_with_odd_letters_works() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join("it's 100% odd: ü");
    let store = ArtifactStore::open(odd.to_str().unwrap()).unwrap();
    let artifact = store.put_bytes(PLACE, label(), "hello").await.unwrap();
    let path = store.fetch(&artifact, folder.path()).await.unwrap();
    assert!(path.starts_with(odd.canonicalize().unwrap()) && path.is_file());
}

#[test]
fn buckets_keep_their_prefix() {
    // The process does this in its main.
    let _ = rustls::crypto::ring::default_provider().install_default();
    for root in ["s3://bucket/some/prefix", "gs://bucket"] {
        let store = ArtifactStore::open(&format!("{root}/")).unwrap();
        let artifact = store.describe(PLACE, label(), "0".repeat(64), 5);
        assert_eq!(artifact.uri, format!("{root}/run-1/video/{}.md", "0".repeat(64)));
        let key = store.key(&artifact).unwrap();
        assert_eq!(
            key.as_ref(),
            artifact.uri.trim_start_matches("s3://bucket/").trim_start_matches("gs://bucket/")
        );
    }
}

#[tokio::test]
async fn a_probe_leaves_nothing_behind() {
    let (folder, stores) = stores();
    for store in &stores {
        store.probe().await.unwrap();
        assert!(store.backend.list(None).try_next().await.unwrap().is_none());
    }
    assert!(folder.path().read_dir().unwrap().next().is_none());
}
