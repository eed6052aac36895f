//! Where the API listens. A Unix socket is made beside its place and moved there, so that nobody can reach it before its
//! rights are set.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

use super::stream::Stream;
use crate::config::ApiListen;
use crate::sys::errno;

/// Rights of the socket: its owner and its owner's group may connect.
const SOCKET_MODE: u32 = 0o660;

/// A place where the API listens.
#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listening {
    /// Listens at `place`. Must be called within the runtime that serves it.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(place: &ApiListen) -> io::Result<Self> {
        match place {
            ApiListen::Off => Err(io::Error::from(io::ErrorKind::Unsupported)),
            ApiListen::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            ApiListen::Unix(path) => Ok(Self::Unix(bind(path)?, path.clone())),
        }
    }

    /// The file that is to go with the API.
    pub(super) fn socket_path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(_, path) => Some(path.clone()),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// What the system says: of one connection, or that descriptors have run out.
    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Replies are written whole.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener, _) => {
                listener.accept().await.map(|(stream, _)| Stream::Unix(stream))
            }
        }
    }
}

/// Whether `place` could be had; takes an address for a moment, and leaves a socket as it is.
///
/// # Errors
/// As of [`Listening::open`].
pub(super) fn probe(place: &ApiListen) -> io::Result<()> {
    match place {
        ApiListen::Off => Ok(()),
        ApiListen::Tcp(address) => std::net::TcpListener::bind(address).map(drop),
        ApiListen::Unix(path) => ensure_free(path),
    }
}

/// Refuses a place where somebody listens, or where something stands that is no socket.
fn ensure_free(path: &Path) -> io::Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().unwrap_or_else(|| Path::new("/"));
            return fs::metadata(directory).map(drop);
        }
        meta => meta?,
    };
    if !meta.file_type().is_socket() {
        return Err(io::Error::other("something stands there that is no socket"));
    }
    // Not a stream: that would wait for room among the connections of whoever listens, perhaps for ever.
    match UnixDatagram::unbound()?.connect(path) {
        Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
        // There is somebody, who does not take datagrams.
        Err(error) if error.raw_os_error() == Some(errno::EPROTOTYPE) => {
            Err(io::ErrorKind::AddrInUse.into())
        }
        // What an ended process has left.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    ensure_free(path)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let hidden = directory.join(format!(".{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&hidden)?;
    let made = hidden.join("api");
    let bound = || {
        let listener = UnixListener::bind(&made)?;
        fs::set_permissions(&made, Permissions::from_mode(SOCKET_MODE))?;
        fs::rename(&made, path)?;
        Ok(listener)
    };
    let listener = bound();
    if listener.is_err() {
        // It may not have come into being.
        let _ = fs::remove_file(&made);
    }
    fs::remove_dir(&hidden)?;
    listener
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("heimdall-{}-{name}", std::process::id()))
    }

    fn listen(path: &Path) -> io::Result<Listening> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        Listening::open(&ApiListen::Unix(path.to_owned()))
    }

    #[test]
    fn somebody_who_accepts_nothing_is_found_at_once() {
        let path = place("backlog");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let socket = tokio::net::UnixSocket::new_stream().unwrap();
        socket.bind(&path).unwrap();
        let _listener = socket.listen(0).unwrap();
        let _waits = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let refused = ensure_free(&path).unwrap_err();
        fs::remove_file(&path).unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn socket_takes_the_place_of_a_dead_one_but_of_nothing_else() {
        let path = place("socket");
        let first = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SOCKET_MODE);
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(path.exists(), "as after a kill");
        drop(listen(&path).unwrap());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert!(listen(&path).unwrap_err().to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(&path).unwrap();
        assert!(probe(&ApiListen::Unix(place("none").join("api"))).is_err());
    }
}
