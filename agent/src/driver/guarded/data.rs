//! Deleting the data of a job that is gone.

use std::fs;
use std::io;
use std::path::{Component, Path};

use super::{GuardedDriver, blocking};
use crate::driver::{Cause, DriverError};

impl GuardedDriver {
    pub(super) async fn delete_data(&self, data_dir: &Path) -> Result<(), DriverError> {
        let root = self.config.root.join("data");
        let inside = data_dir.strip_prefix(&root).ok().filter(|inside| {
            let mut parts = inside.components();
            parts.next().is_some()
                && inside.components().all(|it| matches!(it, Component::Normal(_)))
        });
        if inside.is_none() {
            let message = format!("{} is no job's data", data_dir.display());
            return Err(DriverError::permanent(Cause::Spec, message));
        }
        let dir = data_dir.to_owned();
        blocking(format!("delete the data in {}", data_dir.display()), move || {
            // Links in it are removed, not followed.
            match fs::remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            // The folders above, as long as they are empty: of the application, cluster, deployment.
            let above = dir.ancestors().skip(1).take_while(|above| *above != root);
            for above in above {
                if fs::remove_dir(above).is_err() {
                    break;
                }
            }
            Ok(())
        })
        .await
    }
}
