#include "ublkd/api/routes_rows.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

#include "ublkd/api/fields.h"
#include "ublkd/api/row_json.h"
#include "ublkd/base/fault_injection.h"

namespace ublkd::api {
namespace {

using metadata::Checked;
using metadata::Observed;
using metadata::RowService;

/// A commit whose answer its client waits for no longer may still be on its way, or wait here. The
/// client's next question says so, and is not asked before that commit has ended, or is known never
/// to begin: what it then reads stays so.
class GivenUp {
  public:
    Result<Checked> commit(std::uint64_t client, std::uint64_t number, RowService* rows,
                           const Observed& observed) {
        const std::lock_guard lock(mutex_);
        const auto found = over_.find(client);
        if (found == over_.end() || number > found->second) return rows->commit(observed);
        // Who still waits for it was overtaken by the one that gave up a later one.
        TRY_ASSIGN(Checked checked, rows->check({}));
        checked.same = false;
        return checked;
    }

    /// The commits of `client` up to `number` have ended, or never begin.
    void end(std::uint64_t client, std::uint64_t number) {
        if (number == 0 || faults::rule_off("rule.given_up_is_over")) return;
        const std::lock_guard lock(mutex_);
        if (over_.size() >= kClientsMax && !over_.contains(client)) over_.erase(over_.begin());
        over_[client] = std::max(over_[client], number);
    }

  private:
    static constexpr std::size_t kClientsMax = 10'000;  // each a process that lost an answer
    std::mutex mutex_;                                  // held over a commit
    std::map<std::uint64_t, std::uint64_t> over_;
};

Route rows_route(const char* pattern, const char* operation, std::shared_ptr<GivenUp> given_up,
                 std::function<ApiResult<Json>(const Request&, std::uint64_t client)> handler) {
    const auto whole = [given_up = std::move(given_up),
                        handler = std::move(handler)](const Request& request) -> ApiResult<Json> {
        API_TRY_ASSIGN(const std::uint64_t client,
                       query_number(request, "client", 0, 0, UINT64_MAX));
        API_TRY_ASSIGN(const std::uint64_t over, query_number(request, "over", 0, 0, UINT64_MAX));
        given_up->end(client, over);
        return handler(request, client);
    };
    return Route{Method::kPost, pattern, operation, whole, {"client", "over", "commit"}};
}

}  // namespace

void add_row_routes(RouteTable& table, RowService* rows) {
    const auto given_up = std::make_shared<GivenUp>();
    table.add(rows_route("/v1/rows/list", "ListRows", given_up,
                         [=](const Request& request, std::uint64_t) -> ApiResult<Json> {
                             API_TRY_ASSIGN(const auto asked, read_list_request(request.body));
                             return rows_json(*asked.table, rows->list(*asked.table, asked.query));
                         }));
    table.add(rows_route("/v1/rows/try", "TryChange", given_up,
                         [=](const Request& request, std::uint64_t) -> ApiResult<Json> {
                             API_TRY_ASSIGN(const auto changes, read_changes(request.body));
                             return trial_json(rows->try_last(changes));
                         }));
    table.add(rows_route("/v1/rows/check", "CheckRows", given_up,
                         [=](const Request& request, std::uint64_t) -> ApiResult<Json> {
                             API_TRY_ASSIGN(const auto observed, read_observed(request.body));
                             return checked_json(rows->check(observed));
                         }));
    table.add(rows_route("/v1/rows/commit", "CommitRows", given_up,
                         [=](const Request& request, std::uint64_t client) -> ApiResult<Json> {
                             API_TRY_ASSIGN(const auto number,
                                            query_number(request, "commit", 0, 0, UINT64_MAX));
                             if (number == 0)
                                 return refuse("MissingParameter", "commit=NUMBER is needed");
                             API_TRY_ASSIGN(const auto observed, read_observed(request.body));
                             return checked_json(given_up->commit(client, number, rows, observed));
                         }));
}

}  // namespace ublkd::api
