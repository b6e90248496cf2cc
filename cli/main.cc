// ebs-cli: parse, call the API, print. No logic here.
#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/command.h"

namespace {

using ublkd::cli::Context;
using ublkd::cli::Failure;

void on_interrupt(int) { _exit(ublkd::cli::kExitInterrupted); }

int report(const Failure& failure, bool as_json) {
    if (as_json && !failure.code.empty()) {
        const auto body = ublkd::api::Json::object()
                              .set("code", failure.code)
                              .set("message", failure.message)
                              .set("request_id", failure.request_id);
        fmt::print(stderr, "{}\n", body.dump());
    } else if (failure.code.empty()) {
        fmt::print(stderr, "ebs-cli: {}\n", failure.message);
    } else {
        fmt::print(stderr, "ebs-cli: {} ({})\n", failure.message, failure.code);
    }
    return failure.exit_code;
}

std::string socket_of(const ublkd::cli::Invocation& invocation) {
    if (const auto given = invocation.options.find("socket"); given != invocation.options.end())
        return given->second.back();
    const char* set = std::getenv("UBLKD_SOCKET");
    return set != nullptr && *set != '\0' ? set : "/run/ublkd/api.sock";
}

int run(const std::vector<std::string>& arguments) {
    auto parsed = ublkd::cli::parse_arguments(arguments);
    if (!parsed) return report({ublkd::cli::kExitUsage, "", parsed.error()}, false);
    if (!parsed->help.empty()) {
        fmt::print("{}", parsed->help);
        return 0;
    }
    const auto output = ublkd::cli::output_options(parsed->invocation);
    if (!output) return report(output.error(), false);
    ublkd::cli::Client client(socket_of(parsed->invocation));
    const bool as_json = output->format == ublkd::cli::Format::kJson ||
                         output->format == ublkd::cli::Format::kJsonLines;
    Context context(std::move(parsed->invocation), std::move(client), *output);
    const auto done = context.command().handler(context);
    if (!done) return report(done.error(), as_json);
    if (std::fflush(stdout) != 0)
        return report({ublkd::cli::kExitFailed, "", "cannot write to standard output"}, false);
    return *done;
}

}  // namespace

int main(int argc, char** argv) {
    (void)std::signal(SIGINT, on_interrupt);
    try {
        return run(std::vector<std::string>(argv + 1, argv + argc));
    } catch (const std::exception& exception) {
        return report({ublkd::cli::kExitFailed, "", exception.what()}, false);
    }
}
