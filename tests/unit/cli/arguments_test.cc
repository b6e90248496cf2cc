// From the command line to a command, and the help that comes of the same table.
#include "cli/arguments.h"

#include <gtest/gtest.h>

#include "cli/help.h"

namespace ublkd::cli {
namespace {

TEST(Arguments, OptionsAndPositionalsReachTheCommand) {
    const auto parsed = parse_arguments(
        {"volume", "create", "--size", "10G", "--tag", "a=b", "--tag", "c=d", "-q", "--name=pg"});
    ASSERT_TRUE(parsed) << parsed.error();
    const Invocation& given = parsed->invocation;
    EXPECT_EQ(given.command->path, "volume create");
    EXPECT_EQ(given.options.at("size"), std::vector<std::string>{"10G"});
    EXPECT_EQ(given.options.at("tag"), (std::vector<std::string>{"a=b", "c=d"}));
    EXPECT_TRUE(given.options.contains("quiet"));
    EXPECT_EQ(given.options.at("name"), std::vector<std::string>{"pg"});
}

TEST(Arguments, GlobalOptionsMayStandBeforeTheCommand) {
    for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
             {"--socket", "/x", "-q", "volume", "show", "pg"},
             {"--socket=/x", "volume", "show", "-q", "--", "pg"},
             {"--socket", "/y", "volume", "show", "pg", "--socket", "/x", "-q"},
             {"volume", "show", "pg", "--socket", "/x", "--quiet"}}) {
        const auto parsed = parse_arguments(arguments);
        ASSERT_TRUE(parsed) << parsed.error();
        EXPECT_EQ(parsed->invocation.command->path, "volume show");
        EXPECT_EQ(parsed->invocation.options.at("socket").back(), "/x");
        EXPECT_TRUE(parsed->invocation.options.contains("quiet"));
        EXPECT_EQ(parsed->invocation.positionals.at("VOLUME"), std::vector<std::string>{"pg"});
    }
}

TEST(Arguments, ManyPositionals) {
    const auto parsed = parse_arguments({"volume", "delete", "a", "b", "--yes", "c"});
    ASSERT_TRUE(parsed) << parsed.error();
    EXPECT_EQ(parsed->invocation.positionals.at("VOLUME"),
              (std::vector<std::string>{"a", "b", "c"}));
}

TEST(Arguments, AnOptionOfManyTakesWordsUpToTheNextOption) {
    const auto parsed =
        parse_arguments({"describe-volumes", "--volume-ids", "a", "[b,c]", "--filters",
                         R"([{"Name": "status"}])", "--volume-ids=[d,e]", "-q"});
    ASSERT_TRUE(parsed) << parsed.error();
    EXPECT_EQ(parsed->invocation.options.at("volume-ids"),
              (std::vector<std::string>{"a", "[b,c]", "[d,e]"}));
    EXPECT_EQ(parsed->invocation.options.at("filters"),
              std::vector<std::string>{R"([{"Name": "status"}])"});
}

TEST(Arguments, WhatIsWrongNamesTheHelp) {
    for (const std::vector<std::string>& arguments :
         std::vector<std::vector<std::string>>{{"nonsense"},
                                               {"volume"},
                                               {"volume", "create"},
                                               {"volume", "show"},
                                               {"volume", "list", "--no"},
                                               {"volume", "list", "-o", "xml"},
                                               {"attach", "a", "b"}}) {
        const auto parsed = parse_arguments(arguments);
        ASSERT_FALSE(parsed) << arguments.front();
        EXPECT_NE(parsed.error().find("--help"), std::string::npos) << parsed.error();
    }
}

TEST(Arguments, WhatIsNotExpectedIsToldAsItWasGiven) {
    const auto told = [](const std::vector<std::string>& arguments) {
        return parse_arguments(arguments).error();
    };
    EXPECT_EQ(told({"pool", "list", "b", "c", "a"}),
              "not expected: b c a; see ebs-cli pool list --help");
    EXPECT_EQ(told({"volume", "show", "pg", "--no", "x", "-y", "--z=1"}),
              "not expected: --no x -y --z=1; see ebs-cli volume show --help");
    EXPECT_EQ(told({"-q", "pool", "list", "--", "--sort", "b"}),
              "not expected: --sort b; see ebs-cli pool list --help");
}

TEST(Arguments, HelpAnswersEvenWhereSomethingIsMissing) {
    for (const std::vector<std::string>& arguments :
         std::vector<std::vector<std::string>>{{},
                                               {"--help"},
                                               {"-h"},
                                               {"volume", "--help"},
                                               {"volume", "create", "--help"},
                                               {"volume", "show", "-h"}}) {
        const auto parsed = parse_arguments(arguments);
        ASSERT_TRUE(parsed) << parsed.error();
        EXPECT_TRUE(parsed->help.starts_with("usage: ebs-cli")) << parsed->help;
    }
}

TEST(Help, OfEveryCommandEndsWithItsExample) {
    for (const Command& command : commands()) {
        if (command.listed == Listed::kNowhere) continue;
        const std::string help = help_text(command.path);
        EXPECT_TRUE(help.ends_with("\nexample:\n  " + command.example + "\n")) << command.path;
        EXPECT_NE(command.example.find("ebs-cli"), std::string::npos) << command.path;
        EXPECT_FALSE(command.summary.ends_with('.')) << command.path;
        for (const Option& option : command.options)
            EXPECT_NE(help.find(option.name.substr(option.name.rfind("--"))), std::string::npos)
                << command.path;
        // The example is a line that the parser takes.
        if (command.example.find_first_of("<&|") != std::string::npos) continue;
        std::vector<std::string> words;
        std::string word;
        for (const char c : command.example + " ") {
            if (c != ' ')
                word += c;
            else if (!word.empty())
                words.push_back(std::exchange(word, ""));
        }
        words.erase(words.begin());
        const auto parsed = parse_arguments(words);
        ASSERT_TRUE(parsed) << command.example << ": " << parsed.error();
        EXPECT_EQ(parsed->invocation.command->path, command.path);
    }
}

TEST(Help, ManPageHasEveryCommandAndOption) {
    const std::string page = man_page();
    for (const Command& command : commands()) {
        std::string path = command.path;
        for (auto at = path.find('-'); at != std::string::npos; at = path.find('-', at + 2))
            path.insert(at, "\\");
        EXPECT_EQ(page.find(".SS " + path + "\n") != std::string::npos,
                  command.listed != Listed::kNowhere)
            << command.path;
    }
}

TEST(Completion, KnowsWordsOptionsAndWhatToAskTheDaemonFor) {
    EXPECT_EQ(completions({"vol"}), std::vector<std::string>{"volume"});
    EXPECT_EQ(completions({"volume", "re"}), std::vector<std::string>{"rename"});
    EXPECT_EQ(completions({"volume", "show", ""}), std::vector<std::string>{"<volume>"});
    EXPECT_EQ(completions({"volume", "create", "--on-full", ""}),
              (std::vector<std::string>{"wait", "fail"}));
    EXPECT_EQ(completions({"attach", "pg", "--inst"}), std::vector<std::string>{"--instance"});
    EXPECT_TRUE(completions({"nonsense", ""}).empty());
}

}  // namespace
}  // namespace ublkd::cli
