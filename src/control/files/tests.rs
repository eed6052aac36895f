//! Files that are replaced whole or not at all, whatever stands in their place.

use super::*;

const MAGIC: &[u8] = b"magic";

/// A directory that is removed with this value.
struct Directory(PathBuf);

impl Directory {
    fn create(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("heimdall-files-{name}-{}", std::process::id()));
        make_directory(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn only_ones_own_files_are_believed() {
    assert!(trust(1000, 0o644, 1000).is_ok() && trust(ROOT, 0o600, 1000).is_ok());
    assert!(matches!(trust(1001, 0o600, 1000), Err(Distrust::Foreign(1001))));
    assert!(matches!(trust(1000, 0o620, 1000), Err(Distrust::Exposed(0o620))));
}

#[test]
fn file_in_its_place_is_written_even_if_its_directory_cannot_be_synced() {
    let directory = Directory::create("sync");
    let path = directory.0.join("file");
    fs::write(&path, MAGIC).unwrap();
    let mut unfinished = Unfinished::begin(&path, MAGIC).unwrap();
    unfinished.append(b"magic and more").unwrap();
    let Placed { bytes, doubt } = unfinished.place_and(|_| Err(io::Error::other("full"))).unwrap();
    assert_eq!((bytes, doubt.unwrap().to_string().as_str()), (14, "full"));
    assert_eq!(fs::read(&path).unwrap(), b"magic and more");
    let mut unfinished = Unfinished::begin(&path, MAGIC).unwrap();
    unfinished.target.push("gone");
    unfinished.place_and(|_| panic!("nothing is in its place")).unwrap_err();
    assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "nothing is left behind");
    sync_directory(&path).unwrap();
}

#[test]
fn directory_is_made_if_only_its_last_part_is_missing() {
    let directory = Directory::create("made");
    let path = directory.0.join("lists");
    make_directory(&path).unwrap();
    make_directory(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    assert!(make_directory(&path.join("a/b")).is_err());
    let file = path.join("file");
    fs::write(&file, "").unwrap();
    assert!(make_directory(&file).is_err());
}
