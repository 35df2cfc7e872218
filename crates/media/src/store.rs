//! Where artifacts live: `<root>/<run>/<step>/<sha256>.<extension>`.
//!
//! The content names the file, so no attempt can overwrite what another one made, a repeated write changes nothing, and what was
//! damaged is mended by storing it again. Writes are atomic and, in a local folder, on disk before they return. Reads are checked
//! against size and SHA-256 while they stream.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, WriteMultipart, path::Path as Key};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use url::Url;

use crate::Artifact;
use crate::artifact::{Kind, Label};
use crate::error::MediaError;

/// Files up to this size are written in one call; larger ones in parts of this size, which S3 takes (at least 5 MiB).
const PART_BYTES: usize = 8 << 20;
/// How many parts are on their way at the same time.
const PARTS_IN_FLIGHT: usize = 4;

/// Storage for artifacts: a local folder, or a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    backend: Arc<dyn ObjectStore>,
    /// What every URI begins with, without a slash at its end.
    root: String,
    /// Where the keys begin in the backend: the URL's path in a bucket, nothing in a folder.
    prefix: Key,
    /// The folder, when it is one.
    folder: Option<PathBuf>,
}

/// Whose artifact it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub run: &'a str,
    pub step: &'a str,
}

impl ArtifactStore {
    /// Opens `location`: a folder, which is created when it is missing, or a URL with `file:`, `s3:` or `gs:`. Credentials and
    /// endpoints of buckets come from the environment (`AWS_…`, `GOOGLE_…`). The process must have a rustls crypto provider
    /// installed before a bucket is opened.
    ///
    /// # Errors
    /// [`MediaError::ConfigInvalid`] when the location makes no sense, [`MediaError::Io`] when the folder cannot be made.
    pub fn open(location: &str) -> Result<Self, MediaError> {
        if !location.contains("://") {
            return Self::open_folder(Path::new(location));
        }
        let invalid = |problem: String| MediaError::ConfigInvalid { setting: "LONGTAKE_ARTIFACTS", problem };
        let url =
            Url::parse(location).map_err(|error| invalid(format!("`{location}` is not a URL: {error}")))?;
        let unusable = |error: StoreError| invalid(format!("`{location}` cannot be used: {error}"));
        let backend: Arc<dyn ObjectStore> = match url.scheme() {
            "file" => {
                let path = url.to_file_path();
                return Self::open_folder(
                    &path.map_err(|()| invalid(format!("`{location}` names no local folder")))?,
                );
            }
            "s3" => Arc::new(AmazonS3Builder::from_env().with_url(location).build().map_err(unusable)?),
            "gs" => {
                Arc::new(GoogleCloudStorageBuilder::from_env().with_url(location).build().map_err(unusable)?)
            }
            other => {
                return Err(invalid(format!("`{other}:` is not supported; use a folder, s3:// or gs://")));
            }
        };
        let prefix = Key::from_url_path(url.path())
            .map_err(|error| invalid(format!("`{location}` has a path that cannot be used: {error}")))?;
        Ok(Self { backend, root: location.trim_end_matches('/').to_owned(), prefix, folder: None })
    }

    fn open_folder(folder: &Path) -> Result<Self, MediaError> {
        std::fs::create_dir_all(folder).map_err(MediaError::io("creating the artifact folder", folder))?;
        let folder = folder.canonicalize().map_err(MediaError::io("opening the artifact folder", folder))?;
        let backend = LocalFileSystem::new_with_prefix(&folder)
            .map_err(|source| MediaError::Storage { doing: format!("opening {}", folder.display()), source })?
            .with_fsync(true);
        let root = Url::from_file_path(&folder).map_err(|()| MediaError::ConfigInvalid {
            setting: "LONGTAKE_ARTIFACTS",
            problem: format!("`{}` cannot be written as a URL", folder.display()),
        })?;
        Ok(Self {
            backend: Arc::new(backend),
            root: root.as_str().trim_end_matches('/').to_owned(),
            prefix: Key::ROOT,
            folder: Some(folder),
        })
    }

    /// A store over any backend, as if it were remote.
    #[cfg(test)]
    pub(crate) fn over(backend: Arc<dyn ObjectStore>, root: &str) -> Self {
        Self { backend, root: root.to_owned(), prefix: Key::ROOT, folder: None }
    }

    /// What the URI of every artifact in this store begins with.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Stores bytes that are in memory.
    pub(crate) async fn put_bytes(
        &self,
        place: Place<'_>,
        label: Label,
        bytes: impl Into<Bytes>,
    ) -> Result<Artifact, MediaError> {
        let bytes = bytes.into();
        let artifact = self.describe(place, label, hex(Sha256::digest(&bytes)), bytes.len() as u64);
        if self.verify(&artifact).await.is_ok() {
            return Ok(artifact);
        }
        let key = self.key(&artifact)?;
        self.backend.put(&key, bytes.into()).await.map_err(storage("writing", &artifact.uri))?;
        self.check_size(&key, &artifact).await?;
        Ok(artifact)
    }

    /// Stores a local MP4 file as an artifact of a step of a run, as the video step does.
    ///
    /// # Errors
    /// [`MediaError::Io`] when the file cannot be read, [`MediaError::Storage`], [`MediaError::ArtifactDamaged`] when it changes
    /// meanwhile.
    pub async fn put_video(
        &self,
        run: &str,
        step: &str,
        name: &str,
        file: &Path,
    ) -> Result<Artifact, MediaError> {
        self.put_file(Place { run, step }, Label::new(name, Kind::Mp4), file).await
    }

    /// Stores a local file. What is written is hashed on its way: when the file changes meanwhile, nothing is stored.
    pub(crate) async fn put_file(
        &self,
        place: Place<'_>,
        label: Label,
        file: &Path,
    ) -> Result<Artifact, MediaError> {
        let (sha256, size) = hash_file(file).await?;
        if size <= PART_BYTES as u64 {
            let bytes = tokio::fs::read(file).await.map_err(MediaError::io("reading", file))?;
            return self.put_bytes(place, label, bytes).await;
        }
        let artifact = self.describe(place, label, sha256, size);
        if self.verify(&artifact).await.is_ok() {
            return Ok(artifact);
        }
        let key = self.key(&artifact)?;
        let upload = self.backend.put_multipart(&key).await.map_err(storage("writing", &artifact.uri))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        match copy_parts(file, &mut upload).await {
            Ok(written) if written == artifact.sha256 => {
                upload.finish().await.map_err(storage("writing", &artifact.uri))?;
            }
            other => {
                // The unfinished parts are not an artifact; what failed is worth more than why they could not be removed.
                let _ = upload.abort().await;
                return Err(match other {
                    Err(error) => error,
                    Ok(written) => MediaError::ArtifactDamaged {
                        name: artifact.name,
                        uri: artifact.uri,
                        problem: format!("its file changed while it was stored (now sha256 {written})"),
                    },
                });
            }
        }
        self.check_size(&key, &artifact).await?;
        Ok(artifact)
    }

    /// Checks that an artifact is there and that its size and SHA-256 are those that its description says, without keeping it.
    ///
    /// # Errors
    /// [`MediaError::ArtifactMissing`], [`MediaError::ArtifactDamaged`], [`MediaError::ArtifactForeign`], or
    /// [`MediaError::Storage`] when the storage could not be asked.
    pub async fn verify(&self, artifact: &Artifact) -> Result<(), MediaError> {
        self.stream(artifact, &mut Sink::Nothing).await
    }

    /// An artifact's bytes, verified; for small ones: `limit_bytes` refuses larger ones unread.
    ///
    /// # Errors
    /// As [`ArtifactStore::verify`].
    pub async fn read(&self, artifact: &Artifact, limit_bytes: u64) -> Result<Bytes, MediaError> {
        if artifact.size_bytes > limit_bytes {
            return Err(MediaError::MediaInvalid {
                name: artifact.name.clone(),
                problem: format!("{} bytes, at most {limit_bytes} are read", artifact.size_bytes),
            });
        }
        let mut sink = Sink::Memory(BytesMut::new());
        self.stream(artifact, &mut sink).await?;
        match sink {
            Sink::Memory(bytes) => Ok(bytes.freeze()),
            Sink::Nothing | Sink::File(_) => Ok(Bytes::new()),
        }
    }

    /// A local path to an artifact's verified bytes: the stored file itself in a local folder, else a copy in `into`.
    pub(crate) async fn fetch(&self, artifact: &Artifact, into: &Path) -> Result<PathBuf, MediaError> {
        let relative = self.relative(artifact)?;
        if let Some(folder) = &self.folder {
            self.verify(artifact).await?;
            return Ok(folder.join(relative.as_ref()));
        }
        let target = into.join(relative.filename().unwrap_or("artifact"));
        let doing = "writing a copy of an artifact to";
        let file = tokio::fs::File::create(&target).await.map_err(MediaError::io(doing, &target))?;
        let mut sink = Sink::File(tokio::io::BufWriter::new(file));
        self.stream(artifact, &mut sink).await?;
        if let Sink::File(file) = &mut sink {
            file.flush().await.map_err(MediaError::io(doing, &target))?;
        }
        Ok(target)
    }

    /// Writes, reads and deletes a few bytes, as a check that all of that is allowed.
    pub(crate) async fn probe(&self) -> Result<(), MediaError> {
        const PROBE: &[u8] = b"longtake executor --check";
        let name = format!("longtake-check-{:016x}", RandomState::new().build_hasher().finish());
        let uri = format!("{}/{name}", self.root);
        let key: Key = self.prefix.parts().chain([name.into()]).collect();
        self.backend.put(&key, PROBE.into()).await.map_err(storage("writing", &uri))?;
        let read = async {
            let found = self.backend.get(&key).await?;
            found.bytes().await
        };
        let read = read.await;
        self.backend.delete(&key).await.map_err(storage("deleting", &uri))?;
        if read.map_err(storage("reading", &uri))? == PROBE {
            return Ok(());
        }
        Err(MediaError::ArtifactDamaged {
            name: key.to_string(),
            uri,
            problem: "other bytes were read".to_owned(),
        })
    }

    async fn stream(&self, artifact: &Artifact, sink: &mut Sink) -> Result<(), MediaError> {
        let damaged = |problem: String| MediaError::ArtifactDamaged {
            name: artifact.name.clone(),
            uri: artifact.uri.clone(),
            problem,
        };
        let key = self.key(artifact)?;
        let found = match self.backend.get(&key).await {
            Ok(found) => found,
            Err(StoreError::NotFound { .. }) => {
                return Err(MediaError::ArtifactMissing {
                    name: artifact.name.clone(),
                    uri: artifact.uri.clone(),
                });
            }
            Err(source) => return Err(storage("reading", &artifact.uri)(source)),
        };
        if found.meta.size != artifact.size_bytes {
            return Err(damaged(format!("{} bytes, not {}", found.meta.size, artifact.size_bytes)));
        }
        let mut hash = Sha256::new();
        let mut chunks = found.into_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(storage("reading", &artifact.uri))? {
            hash.update(&chunk);
            sink.take(&chunk).await?;
        }
        let sha256 = hex(hash.finalize());
        if sha256 == artifact.sha256 {
            return Ok(());
        }
        Err(damaged(format!("its sha256 is {sha256}, not {}", artifact.sha256)))
    }

    async fn check_size(&self, key: &Key, artifact: &Artifact) -> Result<(), MediaError> {
        let found = self.backend.head(key).await.map_err(storage("checking", &artifact.uri))?;
        if found.size == artifact.size_bytes {
            return Ok(());
        }
        Err(MediaError::ArtifactDamaged {
            name: artifact.name.clone(),
            uri: artifact.uri.clone(),
            problem: format!("{} of {} bytes were stored", found.size, artifact.size_bytes),
        })
    }

    fn describe(&self, place: Place<'_>, label: Label, sha256: String, size_bytes: u64) -> Artifact {
        let file = format!("{sha256}.{}", label.kind.extension());
        let relative = Key::from_iter([place.run, place.step, file.as_str()]);
        Artifact {
            name: label.name,
            uri: format!("{}/{relative}", self.root),
            sha256,
            size_bytes,
            media_type: label.kind.media_type().to_owned(),
        }
    }

    fn key(&self, artifact: &Artifact) -> Result<Key, MediaError> {
        let relative = self.relative(artifact)?;
        Ok(self.prefix.parts().chain(relative.parts()).collect())
    }

    /// The part of an artifact's URI behind the root. URIs come from other executors' reports: one that leads elsewhere is
    /// refused.
    fn relative(&self, artifact: &Artifact) -> Result<Key, MediaError> {
        let foreign = || MediaError::ArtifactForeign {
            name: artifact.name.clone(),
            uri: artifact.uri.clone(),
            root: self.root.clone(),
        };
        let rest = artifact.uri.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/'));
        Key::parse(rest.ok_or_else(foreign)?).map_err(|_| foreign())
    }
}

/// Where streamed bytes go.
enum Sink {
    Nothing,
    Memory(BytesMut),
    File(tokio::io::BufWriter<tokio::fs::File>),
}

impl Sink {
    async fn take(&mut self, chunk: &[u8]) -> Result<(), MediaError> {
        match self {
            Self::Nothing => Ok(()),
            Self::Memory(bytes) => {
                bytes.extend_from_slice(chunk);
                Ok(())
            }
            Self::File(file) => {
                let doing = "writing a copy of an artifact";
                file.write_all(chunk).await.map_err(MediaError::io(doing, Path::new("")))
            }
        }
    }
}

async fn copy_parts(file: &Path, upload: &mut WriteMultipart) -> Result<String, MediaError> {
    let mut source = tokio::fs::File::open(file).await.map_err(MediaError::io("reading", file))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = source.read(&mut buffer).await.map_err(MediaError::io("reading", file))?;
        if read == 0 {
            return Ok(hex(hash.finalize()));
        }
        hash.update(&buffer[..read]);
        upload
            .wait_for_capacity(PARTS_IN_FLIGHT)
            .await
            .map_err(storage("writing", &file.display().to_string()))?;
        upload.write(&buffer[..read]);
    }
}

async fn hash_file(file: &Path) -> Result<(String, u64), MediaError> {
    let mut source = tokio::fs::File::open(file).await.map_err(MediaError::io("reading", file))?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = source.read(&mut buffer).await.map_err(MediaError::io("reading", file))?;
        if read == 0 {
            return Ok((hex(hash.finalize()), size));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

/// A digest as 64 lower-case hexadecimal digits.
pub(crate) fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn storage(doing: &str, what: &str) -> impl FnOnce(StoreError) -> MediaError {
    let doing = format!("{doing} {what}");
    move |source| MediaError::Storage { doing, source }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
