//! An archive behind a URL: fetched, unpacked by what its bytes are, and packed again.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use cooper_spec::source::ArchiveSource;
use cooper_types::DigestAlgorithm;
use reqwest::Url;
use reqwest::header::{ACCEPT_ENCODING, HeaderValue};

use super::download::{Attempts, Downloaded, TRIES, Wanted, basic, credential};
use super::repack::repack;
use super::{RemoteError, RemoteRequest, RemoteSnapshot, Say, blocking};
use crate::egress::Egress;
use crate::git::CredentialSource;
use crate::unpack::{UnpackError, unpack};

/// Fetches an archive. Dropping the future ends the work.
///
/// What is cut off or damaged is fetched again, as long as other bytes come: a connection may have ended without a sign.
pub async fn fetch_archive(
    egress: &Egress,
    credentials: &dyn CredentialSource,
    source: &ArchiveSource,
    request: RemoteRequest,
    say: Say<'_>,
) -> Result<RemoteSnapshot, RemoteError> {
    let what = source.url.shown();
    let url = Url::parse(source.url.expose()).expect("an archive's URL has been parsed before");
    // The bytes as they are stored: an encoding on the way would be one more to see through.
    let headers = vec![(ACCEPT_ENCODING, HeaderValue::from_static("identity"))];
    let mut wanted = Wanted { headers, ..Wanted::new(what.clone(), url, egress) };
    let place = request.scratch.join("download");
    let mut before = None;
    for left in (0..TRIES).rev() {
        say(format!("Fetching {what}"));
        let mut attempts = Attempts::new();
        let first = loop {
            match download(&wanted, &place, request.received).await {
                Ok(first) => break first,
                Err(error) => attempts.after(error).await?,
            }
        };
        let Some(downloaded) = first else {
            let found = credential(credentials, &wanted.host()).await?;
            let Some(header) = found.as_ref().and_then(basic) else {
                return Err(RemoteError::Unauthorized { what, host: wanted.host(), shown: false });
            };
            wanted.authorization = Some(header);
            continue;
        };
        say(format!("Received {} bytes, {}", downloaded.size, downloaded.digest));
        let (pinned, named) = (downloaded.digest.clone(), what.clone());
        let (place, own) = (place.clone(), request.clone());
        let subdirectory = source.subdirectory.as_ref().map(|path| path.as_str().to_owned());
        let packed = blocking(move |stop| {
            let disk = |source| RemoteError::Disk { source };
            let spool = spool(&own)?;
            let reader = BufReader::with_capacity(256 << 10, File::open(&place).map_err(disk)?);
            let unpacked = unpack(reader, spool, &own.unpack, stop);
            let tree = unpacked.map_err(|source| RemoteError::Unpack { what: named.clone(), source })?;
            repack(&tree, &named, subdirectory.as_deref(), &own, Some(pinned), stop)
        })
        .await;
        let cut = matches!(
            &packed,
            Err(RemoteError::Unpack { source: UnpackError::Truncated { .. } | UnpackError::Damaged { .. }, .. })
        );
        if !cut || left == 0 || before.as_ref() == Some(&downloaded.digest) {
            return packed;
        }
        before = Some(downloaded.digest);
    }
    Err(RemoteError::Unauthorized { what, host: wanted.host(), shown: true })
}

/// Writes the archive to a file; nothing if its host wants a credential first.
async fn download(wanted: &Wanted<'_>, place: &Path, limit: u64) -> Result<Option<Downloaded>, RemoteError> {
    let answer = wanted.ask().await?;
    match answer.status() {
        status if status.is_success() => wanted.keep(answer, place, limit, DigestAlgorithm::Sha256).await.map(Some),
        // Asked for where the credential would go: a redirect's target never sees it.
        status if status == 401 && wanted.authorization.is_none() && answer.host() == wanted.host() => Ok(None),
        _ => Err(wanted.refusal(answer).await),
    }
}

/// A file for the contents of an unpacked source.
pub(super) fn spool(request: &RemoteRequest) -> Result<File, RemoteError> {
    let disk = |source| RemoteError::Disk { source };
    let place = request.scratch.join("contents");
    let options = File::options().read(true).write(true).create(true).truncate(true).open(&place);
    options.map_err(disk)
}
