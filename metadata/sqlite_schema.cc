#include "metadata/sqlite_schema.h"

#include <string>

#include "metadata/migrations.h"
#include "metadata/sqlite_transaction.h"

namespace ublkd::metadata {

int newest_schema() { return static_cast<int>(migrations().size()); }

Result<void> migrate(SqliteDatabase& database, int schema) {
    const auto steps = migrations();
    for (auto number = static_cast<std::size_t>(schema); number < steps.size(); ++number) {
        const std::string header = "PRAGMA application_id = " + std::to_string(kApplicationId) +
                                   "; PRAGMA user_version = " + std::to_string(number + 1);
        const std::string step =
            "BEGIN IMMEDIATE;\n" + std::string(steps[number]) + "\n;" + header + "; COMMIT";
        if (auto done = database.execute(step.c_str()); !done) {
            if (database.in_transaction()) return fail(roll_back(database, done.error()));
            return done;
        }
    }
    TRY_ASSIGN(const std::string verdict, database.text("PRAGMA quick_check(1)"));
    if (verdict != "ok") return fail(Errc::kCorrupt, "metadata database: fails its check");
    return {};
}

}  // namespace ublkd::metadata
