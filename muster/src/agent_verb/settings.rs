//! All settings of an agent, as a file, variables and flags say them: the agent's own and those of the
//! rooms below. Where they are written and which wins is as for a control node.

use agent::{
    Capacity, Config, GuardsConfig, LeftoversConfig, LogSendConfig, SessionConfig, WorkConfig,
    memory::log::LogConfig, reconcile::Tuning,
};
use node::config::{AGENT_ENV_PREFIX, ConfigError, foreign, load};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Settings of one agent. Its folder and the nodes it dials are no settings: they are flags.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    capacity: Capacity,
    tuning: Tuning,
    session: SessionConfig,
    work: WorkConfig,
    logs: LogSendConfig,
    guards: GuardsConfig,
    leftovers: LeftoversConfig,
    #[serde(with = "foreign::Wire")]
    wire: api::fabric::WireConfig,
    #[serde(with = "foreign::Store")]
    store: artifact::StoreConfig,
    #[serde(with = "foreign::ImageLimits")]
    image_limits: artifact::Limits,
    memory: LogConfig,
}

impl Settings {
    /// Reads the file, if one is named, the environment (`MUSTER_AGENT_<SECTION>__<KEY>`) and the flags;
    /// the later wins.
    pub(crate) fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let settings: Self = load(AGENT_ENV_PREFIX, file, env, flags)?;
        let config = settings.clone().into_config(PathBuf::new(), Vec::new());
        config.validate().map_err(|(setting, reason)| ConfigError::Refused {
            setting: setting.to_owned(),
            reason: reason.to_owned(),
        })?;
        Ok(settings)
    }

    /// The configuration of an agent whose data lies in `data`. Every field is named here, so that a new
    /// one cannot be left without a setting.
    pub(crate) fn into_config(self, data: PathBuf, servers: Vec<String>) -> Config {
        Config {
            data,
            servers,
            capacity: self.capacity,
            tuning: self.tuning,
            memory: self.memory,
            wire: self.wire,
            session: self.session,
            store: self.store,
            image_limits: self.image_limits,
            work: self.work,
            logs: self.logs,
            guards: self.guards,
            leftovers: self.leftovers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_file_variables_and_flags_set_an_agent_and_the_later_wins() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        let text = "[work]\nsteps_max = 3\nstops_max = 5\n[guards]\ncompile_ms_max = 9000\n";
        std::fs::write(&file, text).unwrap();
        let env = pairs(&[
            ("MUSTER_AGENT_WORK__STEPS_MAX", "4"),
            ("MUSTER_AGENT_MEMORY__BOUNDS__UNSENT_MAX", "77"),
            ("MUSTER_LEASE__TTL_MS", "of a control node on the same machine"),
        ]);
        let flags = pairs(&[
            ("work.stops_max", "6"),
            ("wire.keepalive_every_ms", "1500"),
            ("memory.bounds.tombstones_max", "88"),
            ("capacity.cpu_millis", "250"),
        ]);
        let settings = Settings::load(Some(&file), env, flags).unwrap();
        let printed = node::config::to_toml(&settings);
        let config = settings.into_config(PathBuf::from("/data"), Vec::new());
        assert_eq!((config.work.steps_max, config.work.stops_max), (4, 6));
        assert_eq!(config.guards.compile_ms_max, 9_000);
        assert_eq!(config.wire.keepalive_every_ms, 1_500);
        assert_eq!(config.memory.bounds.unsent_max, 77);
        assert_eq!(config.memory.bounds.tombstones_max, 88);
        assert_eq!(config.capacity.cpu_millis, Some(250));
        assert_eq!(config.work.kill_margin_ms, WorkConfig::default().kill_margin_ms);

        assert!(printed.contains("[memory.bounds]") && printed.contains("unsent_max = 77"));
        std::fs::write(&file, &printed).unwrap();
        let again = Settings::load(Some(&file), [], []).unwrap();
        assert_eq!(node::config::to_toml(&again), printed, "what is printed is a valid file");
    }

    #[test]
    fn an_unknown_key_and_a_value_that_cannot_work_are_refused_by_name() {
        for (key, value, word) in [
            ("work.stepsmax", "1", "stepsmax"),
            ("works.steps_max", "1", "works"),
            ("memory.bounds.unsent", "1", "unsent"),
            ("wire.keepalive", "1", "keepalive"),
            ("work.steps_max", "many", "work.steps_max"),
            ("work", "1", "section.key"),
            ("work.steps_max", "0", "work.steps_max"),
            ("session.reports_max", "5000", "session.reports_max"),
        ] {
            let error = Settings::load(None, [], pairs(&[(key, value)])).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(word), "{key}={value}: {text}");
        }
    }
}
