// Certificates that a test makes for itself, good for a day: nobody's keys lie in the repository.
#pragma once

#include <memory>
#include <string>

#include "ublkd/io/tls.h"

namespace ublkd::io {

class TestAuthority {
  public:
    explicit TestAuthority(const std::string& name = "authority");
    ~TestAuthority();
    TestAuthority(const TestAuthority&) = delete;
    TestAuthority& operator=(const TestAuthority&) = delete;

    struct Wanted {
        std::string names = "URI:ublkd://test/one";  // as subjectAltName in x509v3_config(5)
        int begins_in_days = -1;
        int ends_in_days = 1;
    };
    /// With a new key. Its authority, too: this one.
    TlsCertificates issue(const Wanted& wanted) const;
    TlsCertificates issue() const { return issue(Wanted()); }
    std::string certificate() const;

  private:
    struct Inside;
    std::unique_ptr<Inside> inside_;
};

/// The key of `certificates` behind a password.
std::string with_password(const std::string& key_pem);

}  // namespace ublkd::io
