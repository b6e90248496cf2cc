// What the host with the cluster's authority does for others, at the address of its metadata: it
// admits a host that has a token and no certificate yet (the only route that such a one may ask;
// server.h), and gives a host with a certificate its next one. docs/cluster.md, "Certificates".
#pragma once

#include <string>

#include "ublkd/api/route_table.h"

namespace ublkd::api {

struct AdmitRequest {
    std::string token;    // its id
    std::string secret;   // in hex
    std::string name;     // of the host
    std::string request;  // for its certificate, in PEM
};
struct Admitted {
    std::string host_id;
    std::string certificate;  // then the authority's, in PEM
    std::string authority;
};

class Enrolment {
  public:
    virtual ~Enrolment() = default;
    /// UnauthorizedOperation: no such token. IncorrectState: it is used, or has ended.
    /// AlreadyExists: the name is another host's. InvalidParameterValue: no request for a
    /// certificate.
    virtual ApiResult<Admitted> admit(const AdmitRequest& request) = 0;
    /// `certified`: the URIs of the host's own certificate.
    virtual ApiResult<std::string> renew(const std::vector<std::string>& certified,
                                         const std::string& request) = 0;
};

inline constexpr const char* kAdmitPath = "/v1/enrol/admit";
inline constexpr const char* kRenewPath = "/v1/enrol/renew";

/// For who has no certificate.
void add_admit_route(RouteTable& table, Enrolment* enrolment);
/// For who has one.
void add_renew_route(RouteTable& table, Enrolment* enrolment);

}  // namespace ublkd::api
