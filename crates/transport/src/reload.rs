//! What a new config did to something that runs: the words in which DNS, hot HTTPS and tunnels answer a reload.
//!
//! A reload has two steps. The first one builds all that is new and may fail; it changes nothing. The second one puts it in force and
//! cannot fail. So the parts of a daemon change together or not at all. Not here: how two configs differ key by key, which is for who
//! read them.

/// What became of the parts of a service. Names are those of the config, such as `dns.upstream.quad9`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What stands as it was, with every warm connection.
    pub kept: Vec<String>,
    /// What is new.
    pub added: Vec<String>,
    /// What is other than it was. Its connections are kept where their key stands, else they are in `drained` too.
    pub changed: Vec<String>,
    /// What gets nothing new any more and ends once what is in flight has ended.
    pub drained: Vec<Drained>,
    /// Keys that were written otherwise and take effect with the next start only; until then they are as they were.
    pub needs_restart: Vec<String>,
}

/// Something that is let go of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drained {
    /// Its name.
    pub name: String,
    /// Connections that were open then.
    pub connections: usize,
}

impl Changes {
    /// Adds what became of another service.
    pub fn extend(&mut self, other: Changes) {
        self.kept.extend(other.kept);
        self.added.extend(other.added);
        self.changed.extend(other.changed);
        self.drained.extend(other.drained);
        self.needs_restart.extend(other.needs_restart);
    }
}
