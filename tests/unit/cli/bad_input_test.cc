// Goal: each command and each option refuses what does not fit before anything is sent to the
// daemon, with exit code 2 and a message that says what was given, what is allowed, or where that
// is told. Method: the table of commands says what there is; each argument gets what does not fit
// in a command line that is good otherwise. The daemon's socket is not there: a good command line
// ends with exit code 6, so a bad one that ends with 2 was refused before. What only the daemon can
// tell is in tests/cli/tests/bad_input_cli.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "cli/arguments.h"

namespace ublkd::cli {
namespace {

using Words = std::vector<std::string>;

/// How a value is written, by the name that the help has for it. Empty: the daemon alone knows.
struct Form {
    std::string good;
    Words bad;
};
const std::map<std::string, Form> kForms{
    {"SIZE", {"1G", {"10", "x", "-1G", "0G", "1X", "1000K", "1.0000001G"}}},
    {"N", {"1", {"many", "-1", "1.5", "0x10", "99999999999999999999", " 1", "1 "}}},
    {"BYTES", {"512", {"big", "-512", "4K"}}},
    {"SEQUENCE", {"1", {"last", "-1"}}},
    {"TIME", {"5m", {"never", "0", "-1s", "1d", "m"}}},
    {"KEY=VALUE", {"a=b", {"x", "=x"}}},
    {"YES|NO", {"yes", {"maybe", "true", "1"}}},
    {"STATE", {"ok", {"nonsense"}}},
    {"MODE", {"", {"nonsense"}}},  // choices
    {"KIND", {"", {"nonsense"}}},
    {"HOW", {"", {"nonsense"}}},
    {"SHELL", {"bash", {"csh"}}},
    {"DEVICE", {"ublkb0", {}}},
    {"DIR", {"/pool", {}}},
    {"POOL", {"/pool", {}}},
    {"FILE", {"/tmp/ublkd-no-backup/file", {}}},
    {"NAME", {"x", {}}},
    {"LABEL", {"/dev/sdf", {}}},
    {"TOKEN", {"t", {}}},
    {"ADDRESS:PORT", {"192.0.2.1:7071", {}}},
    {"VOLUME", {"pg", {}}},
    {"INSTANCE", {"web", {}}},
    {"HOST", {"h1", {}}},
    {"RESOURCE", {"pg", {}}},
    {"KEY", {"a", {}}},
    // of the aliases
    {"GIB", {"1", {"x", "-1", "1.5", "1G"}}},
    {"SPECIFICATIONS",
     {"ResourceType=volume,Tags=[{Key=a,Value=b}]",
      {"x", "ResourceType=instance,Tags=[]", "ResourceType=volume,Tags=[{Key=a,Name=b}]",
       "ResourceType=volume,Tags=[{Value=b}]", "Tags=[]", "ResourceType=volume,Tags=[{Key=a}",
       R"([{"ResourceType": 7}])"}}},
    {"FILTERS",
     {"Name=tag:a,Values=b",
      {"x", "Name=nonsense,Values=b", "Values=b", "Name=tag:a", "Name=tag:a,Value=b", "[1]",
       "[{"}}},
    {"TAGS", {"Key=a,Value=b", {"x", "Value=b", "Key=,Value=b", "Key=a=b,Value=c", "Key=[a]"}}},
    {"KEYS", {"Key=a", {"x", "Key=a,Value=b", "Value=b"}}},
    {"ZONE", {"a", {}}},
    {"TYPE", {"gp3", {}}},
    {"IOPS", {"3000", {}}},
    {"THROUGHPUT", {"125", {}}},
    {"SNAPSHOT", {"snap-0", {}}},
    {"REGION", {"r", {}}},
    {"PROFILE", {"p", {}}},
    {"QUERY", {"VolumeId", {}}},
};

std::string good_value(const Option& option) {
    return option.choices.empty() ? kForms.at(option.value).good : option.choices.front();
}

/// A command line that is taken: each argument that is needed, and what an option needs beside it.
Words good_line(const Command& command, const std::string& with = "") {
    Words words;
    std::string word;
    for (const char c : command.path + " ") {
        if (c != ' ')
            word += c;
        else
            words.push_back(std::exchange(word, ""));
    }
    for (const Positional& positional : command.positionals)
        words.push_back(kForms.at(positional.name).good);
    for (const Option& option : command.options) {
        if (option.name == with) continue;
        const bool needed = option.required || option.name == "--yes" ||
                            (command.path == "volume show" && option.name == "--wait") ||
                            (command.path.ends_with(" drain") && option.name == "--wait" &&
                             (with == "--timeout" || with == "--progress")) ||
                            (command.path == "init" && option.name == "--dir") ||
                            (command.path == "volume modify" && option.name == "--on-full") ||
                            (command.path == "create-volume" && option.name == "--size");
        if (!needed) continue;
        words.push_back(option.name);
        if (!option.value.empty()) words.push_back(good_value(option));
    }
    return words;
}

/// How a command line ends where no daemon answers.
Failure outcome(const Words& words) {
    const auto parsed = parse_arguments(words);
    if (!parsed) return {kExitUsage, "", parsed.error()};
    // Whose path no socket can have: that is told without looking for one.
    Context context(parsed->invocation, Client(std::string(200, 'x')), {});
    const auto done = context.command().handler(context);
    return done ? Failure{*done, "", ""} : done.error();
}

Words operator+(Words words, const Words& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
}

void expect_refused(const Words& words, const Words& texts) {
    const Failure failure = outcome(words);
    const std::string line =
        fmt::format("ebs-cli '{}': {}", fmt::join(words, "' '"), failure.message);
    EXPECT_EQ(failure.exit_code, kExitUsage) << line;
    for (const auto& text : texts)
        EXPECT_NE(failure.message.find(text), std::string::npos) << "'" << text << "' in " << line;
}

Words told_paths() {
    Words paths;
    for (const Command& command : commands()) {
        if (command.listed != Listed::kNowhere) paths.push_back(command.path);
    }
    return paths;
}

class BadCommandLine : public testing::TestWithParam<std::string> {
  protected:
    const Command& command_ = *find_command(GetParam());
};

TEST_P(BadCommandLine, GoodOnesReachTheDaemon) {
    if (command_.path == "completion") return;     // needs none
    if (command_.path == "modify-volume") return;  // is refused whole
    EXPECT_EQ(outcome(good_line(command_)).exit_code, kExitUnreachable);
    for (const Option& option : command_.options) {
        if (command_.path == "detach" && option.name == "--all") continue;  // excludes VOLUME
        if (command_.path == "volume detach" && option.name == "--all") continue;
        if (!option.refused.empty()) continue;
        Words words = good_line(command_, option.name) + Words{option.name};
        if (!option.value.empty()) words.push_back(good_value(option));
        const Failure failure = outcome(words);
        EXPECT_EQ(failure.exit_code, kExitUnreachable)
            << fmt::format("{}: {}", fmt::join(words, " "), failure.message);
    }
}

TEST_P(BadCommandLine, WhatCannotBeHonouredIsRefusedWithTheReason) {
    for (const Option& option : command_.options) {
        if (option.refused.empty()) continue;
        Words words = good_line(command_) + Words{option.name};
        if (!option.value.empty()) words.push_back(good_value(option));
        expect_refused(words, {option.name + " cannot be taken: " + option.refused});
    }
}

TEST_P(BadCommandLine, UnknownOptionAndSurplusWordsAreRefused) {
    const std::string help = fmt::format("see ebs-cli {} --help", command_.path);
    expect_refused(good_line(command_) + Words{"--nonsense"}, {"--nonsense", help});
    expect_refused(good_line(command_) + Words{"-x"}, {"-x", help});
    const bool many = std::ranges::any_of(command_.positionals, &Positional::many);
    // "--" ends what an option takes.
    if (!many) expect_refused(good_line(command_) + Words{"--", "surplus"}, {"surplus", help});
}

TEST_P(BadCommandLine, MissingArgumentsAreNamed) {
    const std::string help = fmt::format("see ebs-cli {} --help", command_.path);
    for (const Positional& positional : command_.positionals) {
        if (!positional.required) continue;
        Words words = good_line(command_);
        std::erase(words, kForms.at(positional.name).good);
        // Of two the last is the one that is missing.
        expect_refused(words, {command_.positionals.back().name, help});
    }
    for (const Option& option : command_.options) {
        if (option.required) expect_refused(good_line(command_, option.name), {option.name, help});
        if (!option.value.empty())
            expect_refused(good_line(command_, option.name) + Words{option.name},
                           {option.name, help});
        else
            expect_refused(good_line(command_) + Words{option.name + "=maybe"},
                           {option.name, help});
    }
}

/// A script's variable that is not set must not mean "all" or "the default".
TEST_P(BadCommandLine, EmptyValuesAreRefused) {
    for (std::size_t i = 0; i < command_.positionals.size(); ++i) {
        Words words = good_line(command_);
        *std::ranges::find(words, kForms.at(command_.positionals[i].name).good) = "";
        expect_refused(words, {command_.positionals[i].name + " must not be empty"});
    }
    for (const Option& option : command_.options) {
        if (option.value.empty()) continue;
        // Choices have a message of their own.
        const std::string text =
            option.choices.empty() ? option.name + " must not be empty" : option.name;
        expect_refused(good_line(command_, option.name) + Words{option.name, ""}, {text});
        for (const Words& after : {Words{}, Words{"next"}, Words{"--yes"}})
            expect_refused(good_line(command_, option.name) + Words{option.name + "="} + after,
                           {option.name + " must not be empty"});
    }
    for (const Option& option : global_options_of(command_)) {
        if (option.value.empty()) continue;
        const std::string name = option.name.substr(option.name.rfind("--"));
        expect_refused(good_line(command_) + Words{name, ""}, {name});
    }
}

TEST_P(BadCommandLine, MisfitsAreRefusedAndShown) {
    for (const Option& option : command_.options) {
        if (option.value.empty()) continue;
        ASSERT_TRUE(kForms.contains(option.value))
            << option.value << " of " << option.name << ": say here what does not fit it";
        if (!option.refused.empty()) continue;
        for (const std::string& bad : kForms.at(option.value).bad) {
            Words texts;
            if (!option.many) texts.push_back(bad);  // structures are told as JSON
            if (option.value != "KEY=VALUE") texts.push_back(option.name);
            for (const auto& choice : option.choices) texts.push_back(choice);
            expect_refused(good_line(command_, option.name) + Words{option.name, bad}, texts);
        }
    }
    for (const Positional& positional : command_.positionals) {
        for (const std::string& bad : kForms.at(positional.name).bad) {
            Words words = good_line(command_);
            *std::ranges::find(words, kForms.at(positional.name).good) = bad;
            expect_refused(words, {bad});
        }
    }
}

/// What would be ignored is not taken.
TEST_P(BadCommandLine, GlobalOptionsThatHaveNoPlaceAreUnknown) {
    const auto taken = global_options_of(command_);
    for (const Option& option : global_options()) {
        if (std::ranges::find(taken, option.name, &Option::name) != taken.end()) continue;
        expect_refused(good_line(command_) + Words{option.name, "x"}, {option.name});
        expect_refused(Words{option.name, "x"} + good_line(command_), {option.name});
    }
    expect_refused(good_line(command_) + Words{"-o", "xml"}, {"xml", "jsonl"});
}

INSTANTIATE_TEST_SUITE_P(Each, BadCommandLine, testing::ValuesIn(told_paths()),
                         [](const auto& command) {
                             std::string name = command.param;
                             std::ranges::replace_if(
                                 name, [](char c) { return c == ' ' || c == '-'; }, '_');
                             return name;
                         });

TEST(BadCombination, IsToldWithWhatToDo) {
    for (const auto& [words, text] : std::vector<std::pair<Words, std::string>>{
             {{"detach"}, "give a VOLUME or --all, one of the two"},
             {{"detach", "pg", "--all"}, "give a VOLUME or --all, one of the two"},
             {{"volume", "modify", "pg"}, "nothing to change: give --name"},
             {{"volume", "show", "pg", "--timeout", "5m"}, "--timeout goes with --wait"},
             {{"volume", "show", "pg", "--progress", "json"}, "--progress goes with --wait"},
             {{"volume", "create", "--size", "1G", "--count", "0"}, "--count is 1 to 1000"},
             {{"volume", "create", "--size", "1G", "--count", "1001"}, "--count is 1 to 1000"},
             {{"volume", "create", "--size", "1G", "--count", "2", "--name", "x"},
              "give no --name"},
             {{"volume", "create", "--size", "1G", "--count", "2", "--client-token", "x"},
              "no --client-token"},
             {{"init", "--domain", "a"}, "give its --dir too"},
             {{"init", "--size", "1G"}, "give its --dir too"},
             {{"init", "--buffered"}, "give its --dir too"},
             {{"nonsense"}, "there is no command 'ebs-cli nonsense'"},
             {{"volume", "nonsense"}, "there is no command 'ebs-cli volume nonsense'"},
             {{"volume"}, "a command is needed"},
             {{"--nonsense"}, "see ebs-cli --help"}})
        expect_refused(words, {text});
}

/// CLI11 would take it for two.
TEST(BadCombination, ValueInBracketsIsOneValue) {
    const auto parsed = parse_arguments({"volume", "delete", "[a,b]", "{}", "--yes"});
    ASSERT_TRUE(parsed) << parsed.error();
    EXPECT_EQ(parsed->invocation.positionals.at("VOLUME"), (Words{"[a,b]", "{}"}));
    const auto named = parse_arguments({"volume", "rename", "[a]", "[b,c]", "--sort", "[d]"});
    ASSERT_FALSE(named);
    EXPECT_EQ(named.error(), "not expected: --sort [d]; see ebs-cli volume rename --help");
}

TEST(BadColumns, AreRefusedWithThoseThatThereAre) {
    for (const Command& command : commands()) {
        if (command.prints.view == nullptr) continue;
        const auto known = check_columns(command.prints.view(), {.columns = {"nonsense"}});
        ASSERT_FALSE(known) << command.path;
        EXPECT_NE(known.error().find("there is no column 'nonsense'; there are "),
                  std::string::npos);
    }
}

}  // namespace
}  // namespace ublkd::cli
