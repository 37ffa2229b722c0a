//! Objects that are not pods: ConfigMaps, Secrets, Deployments, Services, … as they were applied.

use super::Error;
use super::layout::Layout;
use super::lock::Locks;
use super::record::{self, ObjectRecord};
use crate::model::names::ObjectKey;
use crate::sys::fs;

/// An object's record; `None` if it was not applied.
///
/// # Errors
/// It cannot be read, or is corrupt.
pub fn read(layout: &Layout, key: &ObjectKey) -> Result<Option<ObjectRecord>, Error> {
    record::read(&layout.object(key), || remedy(key))
}

/// The records of all objects, by kind and name, and what could not be read: one corrupt file hides no other object.
///
/// # Errors
/// A folder cannot be read.
pub fn list(layout: &Layout) -> Result<(Vec<ObjectRecord>, Vec<Error>), Error> {
    let mut records = Vec::new();
    let mut errors = Vec::new();
    for folder in layout.objects() {
        for namespace in fs::list(&folder)? {
            let folder = folder.join(namespace);
            for kind in fs::list(&folder)? {
                let folder = folder.join(kind);
                for name in fs::list(&folder)? {
                    // A file that is being written has a name that starts with a dot.
                    if name.to_string_lossy().starts_with('.') {
                        continue;
                    }
                    let path = folder.join(name);
                    match record::read(&path, || format!("remove {path:?}")) {
                        Ok(Some(record)) => records.push(record),
                        // Removed since the folder was read.
                        Ok(None) => {}
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
    }
    records.sort_by(|a: &ObjectRecord, b| a.key.cmp(&b.key));
    Ok((records, errors))
}

/// Writes an object's record.
///
/// # Errors
/// It cannot be written.
///
/// # Panics
/// The object is not locked.
pub fn write(locks: &Locks, record: &ObjectRecord) -> Result<(), Error> {
    assert!(locks.has_object(&record.key), "writing needs the lock");
    let path = locks.layout().object(&record.key);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder, 0o700)?;
    }
    record::write(&path, record)
}

/// Removes an object's record, corrupt or not; fine if there is none. Returns whether there was one.
///
/// # Errors
/// It cannot be removed.
///
/// # Panics
/// The object is not locked.
pub fn remove(locks: &Locks, key: &ObjectKey) -> Result<bool, Error> {
    assert!(locks.has_object(key), "writing needs the lock");
    let path = locks.layout().object(key);
    let there = fs::read_if_there(&path)?.is_some();
    fs::remove_file(&path)?;
    Ok(there)
}

fn remedy(key: &ObjectKey) -> String {
    let (kind, name) = (key.kind.to_ascii_lowercase(), &key.name);
    format!("`kplay delete {kind} {name} --force` removes it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::names::Namespace;
    use crate::state::lock::Subject;
    use crate::state::testing::{Scratch, object};
    use crate::sys::poll::Interrupt;

    #[test]
    fn secrets_stay_in_memory_and_a_corrupt_record_hides_no_other() {
        let scratch = Scratch::new();
        let layout = scratch.layout();
        let interrupt = Interrupt::install().unwrap();
        let records = [object("ConfigMap", "a"), object("Secret", "b")];
        let subjects = records
            .iter()
            .map(|record| Subject::Object(record.key.clone()));
        let locks = Locks::take(&layout, subjects, &interrupt, &mut |_| {}).unwrap();
        for record in &records {
            write(&locks, record).unwrap();
            assert_eq!(read(&layout, &record.key).unwrap().as_ref(), Some(record));
        }
        let [config, secret] = &records;
        assert!(layout.object(&secret.key).starts_with(layout.runroot()));
        assert_eq!(list(&layout).unwrap().0, records);

        fs::replace(&layout.object(&config.key), 0o600, b"{").unwrap();
        let (rest, errors) = list(&layout).unwrap();
        assert_eq!((rest.len(), errors.len()), (1, 1));
        let error = read(&layout, &config.key).unwrap_err().to_string();
        assert!(
            error.contains("`kplay delete configmap a --force`"),
            "{error}"
        );
        assert!(remove(&locks, &config.key).unwrap());
        assert!(!remove(&locks, &config.key).unwrap());
        assert_eq!(config.key.namespace, Namespace::default());
    }
}
