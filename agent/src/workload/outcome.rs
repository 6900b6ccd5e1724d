//! A value that one task makes and any number of tasks wait for.

use tokio::sync::watch;

use super::error::WorkloadError;

/// The maker's end. Dropping it without a value makes waiting end in an error.
#[derive(Debug)]
pub(crate) struct Promise<T>(watch::Sender<Option<Result<T, WorkloadError>>>);

/// A waiter's end.
#[derive(Debug)]
pub(crate) struct Outcome<T>(watch::Receiver<Option<Result<T, WorkloadError>>>);

impl<T> Clone for Outcome<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Both ends of a value to come.
pub(crate) fn promise<T>() -> (Promise<T>, Outcome<T>) {
    let (sender, receiver) = watch::channel(None);
    (Promise(sender), Outcome(receiver))
}

impl<T> Promise<T> {
    /// Gives the value to everybody who waits, now or later.
    pub(crate) fn fulfil(&self, result: Result<T, WorkloadError>) {
        self.0.send_replace(Some(result));
    }
}

impl<T: Clone> Outcome<T> {
    /// Waits for the value. Cancel safe.
    ///
    /// Has no deadline of its own: whoever makes the value has one for each of its steps.
    pub(crate) async fn wait(&self) -> Result<T, WorkloadError> {
        match self.0.clone().wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => result.clone(),
            _ => Err(WorkloadError::ShutDown),
        }
    }

    /// The value, if it is there and good.
    pub(crate) fn now(&self) -> Option<T> {
        self.0
            .borrow()
            .as_ref()
            .and_then(|result| result.as_ref().ok().cloned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_gets_the_same_result() {
        let (promise, outcome) = promise();
        let early = tokio::spawn({
            let outcome = outcome.clone();
            async move { outcome.wait().await }
        });
        assert_eq!(outcome.now(), None);
        promise.fulfil(Ok(7));
        assert_eq!(early.await.unwrap().unwrap(), 7);
        assert_eq!(outcome.wait().await.unwrap(), 7);
        assert_eq!(outcome.now(), Some(7));
    }

    #[tokio::test]
    async fn a_maker_that_goes_away_ends_the_wait() {
        let (promise, outcome) = promise::<()>();
        drop(promise);
        assert!(matches!(outcome.wait().await, Err(WorkloadError::ShutDown)));
    }
}
