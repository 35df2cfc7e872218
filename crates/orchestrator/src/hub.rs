//! Hints to those who wait for a run or a session to change. A missed hint costs a look a moment later, never an answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Who waits for what.
#[derive(Debug)]
pub struct Hub<K: Eq + Hash + Copy> {
    waiting: Arc<Mutex<HashMap<K, watch::Sender<()>>>>,
}

/// A place to wait. Leaving it behind costs nothing.
#[derive(Debug)]
pub struct Waiter<K: Eq + Hash + Copy> {
    key: K,
    hints: watch::Receiver<()>,
    hub: Hub<K>,
}

impl<K: Eq + Hash + Copy> Clone for Hub<K> {
    fn clone(&self) -> Hub<K> {
        Hub { waiting: self.waiting.clone() }
    }
}

impl<K: Eq + Hash + Copy> Default for Hub<K> {
    fn default() -> Hub<K> {
        Hub { waiting: Arc::default() }
    }
}

impl<K: Eq + Hash + Copy> Hub<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for hints about `key` from now on.
    pub fn wait_for(&self, key: K) -> Waiter<K> {
        let hints = self.lock().entry(key).or_insert_with(|| watch::Sender::new(())).subscribe();
        Waiter { key, hints, hub: self.clone() }
    }

    /// Tells those who wait for `key`.
    pub fn hint(&self, key: K) {
        if let Some(sender) = self.lock().get(&key) {
            sender.send_replace(());
        }
    }
}

impl<K: Eq + Hash + Copy> Waiter<K> {
    /// Resolves at the next hint.
    pub async fn hint(&mut self) {
        // The sender lives as long as this waiter.
        let _ = self.hints.changed().await;
    }
}

impl<K: Eq + Hash + Copy> Drop for Waiter<K> {
    fn drop(&mut self) {
        let mut waiting = self.hub.lock();
        if waiting.get(&self.key).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.key);
        }
    }
}
