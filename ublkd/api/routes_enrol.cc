#include "ublkd/api/routes_enrol.h"

#include "ublkd/api/fields.h"

namespace ublkd::api {

void add_admit_route(RouteTable& table, Enrolment* enrolment) {
    table.add(
        {Method::kPost, kAdmitPath, "AdmitHost", [=](const Request& request) -> ApiResult<Json> {
             Fields fields(request.body);
             AdmitRequest asked;
             asked.token = fields.required_text("Token");
             asked.secret = fields.required_text("Secret");
             asked.name = fields.required_text("Name");
             asked.request = fields.required_text("Request");
             API_TRY(fields.done());
             API_TRY_ASSIGN(const auto admitted, enrolment->admit(asked));
             return Json::object()
                 .set("HostId", admitted.host_id)
                 .set("Certificate", admitted.certificate)
                 .set("Authority", admitted.authority);
         }});
}

void add_renew_route(RouteTable& table, Enrolment* enrolment) {
    table.add({Method::kPost, kRenewPath, "RenewCertificate",
               [=](const Request& request) -> ApiResult<Json> {
                   Fields fields(request.body);
                   const std::string asked = fields.required_text("Request");
                   API_TRY(fields.done());
                   API_TRY_ASSIGN(const auto certificate,
                                  enrolment->renew(request.caller.certified, asked));
                   return Json::object().set("Certificate", certificate);
               }});
}

}  // namespace ublkd::api
