//! Passwords of people: Argon2id, few at a time, the same time for names that do not exist.

use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// Longest password in octets; longer ones only cost time.
pub(crate) const LONGEST: usize = 512;

/// Why a password was not hashed or compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
    #[error("argon2: {0}")]
    Hash(String),
    #[error("the thread that hashes ended")]
    Ended,
}

/// Hashes and compares, two at a time: each takes 19 MiB.
#[derive(Debug)]
pub(crate) struct Passwords {
    places: Semaphore,
    /// What names that do not exist are compared with, so that they take as long.
    nobody: String,
    params: Params,
}

impl Passwords {
    /// # Errors
    /// When the system has no randomness to give.
    pub(crate) fn new(params: Params) -> Result<Self, PasswordError> {
        let nobody = hash(&params, super::fresh().map_err(PasswordError::Random)?.as_bytes())?;
        Ok(Self { places: Semaphore::new(2), nobody, params })
    }

    /// A PHC string of a password.
    pub(crate) async fn hash(&self, password: String) -> Result<String, PasswordError> {
        let _place = self.places.acquire().await.map_err(|_| PasswordError::Ended)?;
        let params = self.params.clone();
        tokio::task::spawn_blocking(move || hash(&params, zeroize::Zeroizing::new(password).as_bytes()))
            .await
            .map_err(|_| PasswordError::Ended)?
    }

    /// Whether this is the password that was hashed; with no hash it takes as long and is not.
    pub(crate) async fn is(&self, password: String, hashed: Option<String>) -> Result<bool, PasswordError> {
        let _place = self.places.acquire().await.map_err(|_| PasswordError::Ended)?;
        let known = hashed.is_some();
        let hashed = hashed.unwrap_or_else(|| self.nobody.clone());
        let same = tokio::task::spawn_blocking(move || {
            let password = zeroize::Zeroizing::new(password);
            let hashed = PasswordHash::new(&hashed).map_err(|e| PasswordError::Hash(e.to_string()))?;
            Ok(Argon2::default().verify_password(password.as_bytes(), &hashed).is_ok())
        });
        same.await.map_err(|_| PasswordError::Ended)?.map(|same| same && known)
    }
}

fn hash(params: &Params, password: &[u8]) -> Result<String, PasswordError> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(PasswordError::Random)?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let hash = argon2.hash_password_with_salt(password, &salt).map_err(|e| PasswordError::Hash(e.to_string()))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::Passwords;

    #[tokio::test]
    async fn a_password_is_known_by_its_argon2id_hash_only() {
        let passwords = Passwords::new(argon2::Params::new(64, 1, 1, None).expect("small")).expect("randomness");
        let hashed = passwords.hash("correct horse".into()).await.expect("hashed");
        assert!(hashed.starts_with("$argon2id$v=19$m=64,t=1,p=1$") && !hashed.contains("horse"), "{hashed}");
        assert_ne!(hashed, passwords.hash("correct horse".into()).await.expect("hashed"), "no salt");
        assert!(passwords.is("correct horse".into(), Some(hashed.clone())).await.expect("compared"));
        assert!(!passwords.is("correct horsf".into(), Some(hashed)).await.expect("compared"));
        assert!(!passwords.is("correct horse".into(), None).await.expect("compared"));
    }
}
