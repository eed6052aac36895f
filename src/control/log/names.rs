//! What the numbers of lists, groups and listeners mean.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config;
use crate::observe::OVERRIDES;
use crate::observe::log::Label;
use crate::policy::{Filtering, Published};

/// The operator's names, as of the policy in force.
#[derive(Debug)]
pub(super) struct Names {
    published: Arc<Published>,
    epoch: Option<u64>,
    listeners: Vec<SocketAddr>,
    groups: Vec<Option<String>>,
    lists: Vec<&'static str>,
}

impl Names {
    pub(super) fn new(published: Arc<Published>, listeners: Vec<SocketAddr>) -> Self {
        let (groups, lists) = (Vec::new(), Vec::new());
        let mut names = Self { published, epoch: None, listeners, groups, lists };
        names.take_up();
        names
    }

    /// Goes by the policy in force from now on; `true` if that is another one than before.
    pub(super) fn take_up(&mut self) -> bool {
        if Some(self.published.epoch()) == self.epoch {
            return false;
        }
        // The policy itself is not kept: it may be large, and somebody waits to give its memory back.
        let (epoch, policy) = self.published.current();
        self.epoch = Some(epoch);
        let groups = (0..=u8::MAX).map(|group| policy.group_name(group).map(str::to_owned));
        self.groups = groups.collect();
        self.lists = policy.filtering().map_or_else(Vec::new, Filtering::list_names);
        true
    }

    /// What stands for `label`.
    pub(super) fn label(&self, label: Label) -> String {
        match label {
            Label::Listener(number) => self.listener(number),
            Label::Group(number) => self.group(number),
            Label::List(number) => self.list(number),
        }
    }

    /// The name of a list.
    pub(super) fn list(&self, number: u8) -> String {
        if number == OVERRIDES {
            return config::OVERRIDES_NAME.to_owned();
        }
        let known = self.lists.get(usize::from(number));
        known.map_or_else(|| format!("#{number}"), |name| (*name).to_owned())
    }

    /// The name of a group.
    fn group(&self, number: u8) -> String {
        let known = self.groups.get(usize::from(number)).cloned().flatten();
        known.unwrap_or_else(|| match number {
            0 => config::DEFAULT_GROUP.to_owned(),
            other => format!("#{other}"),
        })
    }

    /// The address of a listener.
    fn listener(&self, number: u16) -> String {
        let known = self.listeners.get(usize::from(number));
        known.map_or_else(|| format!("#{number}"), ToString::to_string)
    }
}
