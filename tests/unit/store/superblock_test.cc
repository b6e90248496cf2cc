// Goal: the superblock's bytes are those of docs/format-replica.md, and what is damaged, misplaced
// or of another version is refused. Method: golden bytes; each damage by hand; the file with its
// two copies on a disk in memory.
#include "ublkd/store/superblock.h"

#include <fmt/core.h>

#include <array>

#include "tests/crash/recorded_disk.h"
#include "ublkd/base/bytes.h"
#include "ublkd/base/crc32c.h"
#include "ublkd/base/fault_injection.h"
#include "ublkd/io/reactor.h"
#include "ublkd/store/superblock_file.h"

namespace ublkd::store {
namespace {

constexpr ReplicaId kReplica{0x1122334455667788};
using Page = std::array<std::byte, kSuperblockBytes>;

SuperblockCopy example() {
    const std::array record{std::byte{0xaa}, std::byte{0xbb}};
    const std::array pending{std::byte{0xcc}};
    const std::array left_by{std::byte{0xdd}, std::byte{0xee}, std::byte{0xff}};
    SuperblockCopy copy;
    copy.sequence = 9;
    copy.value.volume = VolumeId(0x0102030405060708);
    copy.value.incarnation = kReplica;
    copy.value.size_bytes = kGiB;
    copy.value.number = 5;
    copy.value.durable_through = 77;
    copy.value.cleared_through = 76;
    copy.value.lost[1] = {ReplicaId(0x21), 4, 75};
    copy.value.record = RecordBytes(record);
    copy.value.pending = ProposalBytes(pending);
    copy.value.left_by = RecordBytes(left_by);
    copy.value.boot_id.fill(std::byte{0x42});
    copy.value.clean = true;
    return copy;
}

Page encoded(const SuperblockCopy& copy, std::uint32_t place) {
    Page page;
    encode_superblock(copy, place, page);
    return page;
}

/// Puts the right checksum on a page that was changed by hand.
void seal(Page& page) {
    store_le<std::uint32_t>(page.data() + 12, 0);
    store_le<std::uint32_t>(page.data() + 12, crc32c(page));
}

std::string hex_of(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte b : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(b));
    return text;
}

TEST(Superblock, HasTheBytesOfTheFormatPage) {
    const Page page = encoded(example(), 1);
    EXPECT_EQ(hex_of(std::span(page).first(96)),
              "55424c4b4453420a02000000a5f84289"
              "09000000000000000100000001000000"
              "08070605040302018877665544332211"
              "00000040000000000500000000000000"
              "4d000000000000004242424242424242"
              "42424242424242420200010003000000");
    EXPECT_EQ(hex_of(std::span(page).subspan(96, 64)),
              "4c000000000000000000000000000000"
              "00000000000000000000000000000000"
              "21000000000000000400000000000000"
              "4b000000000000000000000000000000");
    EXPECT_EQ(hex_of(std::span(page).subspan(256, 4)), "aabb0000");
    EXPECT_EQ(hex_of(std::span(page).subspan(768, 4)), "cc000000");
    EXPECT_EQ(hex_of(std::span(page).subspan(1408, 4)), "ddeeff00");
    EXPECT_TRUE(is_all_zero(std::span(page).subspan(1920)));
}

TEST(Superblock, IsReadAsItWasWritten) {
    const auto read = decode_superblock(encoded(example(), 0), 0, kReplica);
    ASSERT_TRUE(read) << to_string(read.error());
    EXPECT_EQ(read->value, example().value);
    EXPECT_EQ(read->sequence, 9U);
}

TEST(Superblock, AnyFlippedBitIsCorrupt) {
    const Page whole = encoded(example(), 0);
    for (std::size_t at = 0; at < kSuperblockBytes; at += 7) {
        Page page = whole;
        page[at] ^= std::byte{0x10};
        const auto read = decode_superblock(page, 0, kReplica);
        ASSERT_FALSE(read) << at;
        EXPECT_EQ(read.error().code, Errc::kCorrupt) << at;
    }
}

TEST(Superblock, IsRefusedWhereItWasNotWrittenOrOfAnotherReplica) {
    const Page page = encoded(example(), 0);
    EXPECT_EQ(decode_superblock(page, 1, kReplica).error().code, Errc::kCorrupt);
    EXPECT_EQ(decode_superblock(page, 0, ReplicaId(3)).error().code, Errc::kCorrupt);
}

TEST(Superblock, OtherVersionsAndFlagsAreUnsupported) {
    Page page = encoded(example(), 0);
    store_le<std::uint32_t>(page.data() + 8, 3);
    seal(page);
    EXPECT_EQ(decode_superblock(page, 0, kReplica).error().code, Errc::kUnsupported);
    page = encoded(example(), 0);
    store_le<std::uint32_t>(page.data() + 28, 4);
    seal(page);
    EXPECT_EQ(decode_superblock(page, 0, kReplica).error().code, Errc::kUnsupported);
}

TEST(Superblock, WhatContradictsItselfIsCorrupt) {
    struct Damage {
        std::size_t at;
        std::uint64_t value;
        std::size_t bytes;
    };
    for (const Damage damage : {Damage{88, 513, 2}, Damage{90, 641, 2}, Damage{48, 0, 8},
                                Damage{48, 513, 8}, Damage{32, 0, 8}, Damage{16, 0, 8}}) {
        Page page = encoded(example(), 0);
        std::memcpy(page.data() + damage.at, &damage.value, damage.bytes);
        seal(page);
        const auto read = decode_superblock(page, 0, kReplica);
        ASSERT_FALSE(read) << damage.at;
        EXPECT_EQ(read.error().code, Errc::kCorrupt) << damage.at;
    }
}

/// The file on a disk in memory.
class SuperblockFileTest : public ::testing::Test {
  protected:
    void SetUp() override {
        disk_.set_immediate();
        SuperblockFile file = open(true);
        ASSERT_TRUE(file.file()->set_size(kSuperblockFileBytes));
        ASSERT_TRUE(run(file.format(example().value)));
    }
    void TearDown() override { faults::disarm_all(); }
    template <class T>
    T run(io::Task<T> task) {
        return reactor_->run_until_complete(std::move(task));
    }
    SuperblockFile open(bool create) {
        return SuperblockFile(std::move(*folder_->open("superblock", {create, false})));
    }
    std::unique_ptr<DiskFile> raw() {
        return std::move(*folder_->open("superblock", {false, false}));
    }
    Page read_copy(std::uint32_t copy) {
        Page page;
        EXPECT_TRUE(run(raw()->read(copy * kSuperblockBytes, page)));
        return page;
    }
    void write_copy(std::uint32_t copy, const Page& page) {
        EXPECT_TRUE(run(raw()->write(copy * kSuperblockBytes, page, Durability::kDurable)));
    }
    Result<std::uint64_t> number_after_load() {
        SuperblockFile file = open(false);
        TRY(run(file.load(kReplica)));
        valid_ = file.both_copies_valid();
        return file.current().number;
    }
    void update(std::uint64_t number) {
        SuperblockFile file = open(false);
        ASSERT_TRUE(run(file.load(kReplica)));
        SuperblockChange change;
        change.number = number;
        ASSERT_TRUE(run(file.update(change)));
        EXPECT_EQ(file.current().number, number);
        EXPECT_EQ(file.current().durable_through, 77U) << "what is not named stays";
    }

    std::unique_ptr<io::Reactor> reactor_ = std::move(*io::Reactor::create());
    crash::RecordedDisk disk_{1};
    std::unique_ptr<DiskFolder> folder_ = disk_.folder();
    bool valid_ = false;
};

TEST_F(SuperblockFileTest, UpdatesAreWrittenToTheTwoCopiesInTurn) {
    const Page before0 = read_copy(0);
    update(6);
    EXPECT_EQ(read_copy(0), before0);
    const Page before1 = read_copy(1);
    update(7);
    EXPECT_EQ(read_copy(1), before1);
    EXPECT_EQ(number_after_load(), 7U);
    EXPECT_TRUE(valid_);
}

TEST_F(SuperblockFileTest, OneDamagedCopyLeavesTheOther) {
    update(6);  // in copy 1
    Page page = read_copy(1);
    page[300] ^= std::byte{1};
    write_copy(1, page);
    EXPECT_EQ(number_after_load(), 5U);
    EXPECT_FALSE(valid_);
    page = read_copy(0);
    page[0] ^= std::byte{1};
    write_copy(0, page);
    const auto none = number_after_load();
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, Errc::kCorrupt);
}

TEST_F(SuperblockFileTest, ACopyOfANewerVersionForbidsTheOlderOne) {
    Page page = read_copy(1);
    store_le<std::uint32_t>(page.data() + 8, 3);
    seal(page);
    write_copy(1, page);
    const auto loaded = number_after_load();
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, Errc::kUnsupported);
}

TEST_F(SuperblockFileTest, AReadThatFailsForAShortageDoesNotMakeTheOlderCopyCount) {
    update(6);
    update(7);  // in copy 0, which is read first
    disk_.fail_next_read();
    const auto loaded = number_after_load();
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, Errc::kExhausted);
    ASSERT_TRUE(faults::arm("rule.shortage_is_no_damage=off"));
    disk_.fail_next_read();
    EXPECT_EQ(number_after_load(), 6U) << "without the rule an older state is taken for the last";
}

TEST_F(SuperblockFileTest, AMisdirectedCopyIsNotUsedUnlessTheRuleIsOff) {
    const Page old0 = read_copy(0);
    update(6);
    update(7);  // in copy 0
    update(8);  // in copy 1
    write_copy(1,
               read_copy(0));  // the disk wrote copy 0 over copy 1, then lost copy 0's newest write
    write_copy(0, old0);
    EXPECT_EQ(number_after_load(), 5U);
    ASSERT_TRUE(faults::arm("rule.own_location=off"));
    EXPECT_EQ(number_after_load(), 7U)
        << "without the rule a page is taken that was never written there";
}

TEST_F(SuperblockFileTest, AFailedUpdateChangesNothingInMemory) {
    SuperblockFile file = open(false);
    ASSERT_TRUE(run(file.load(kReplica)));
    ASSERT_TRUE(faults::arm("store.superblock_write=fail:28@1"));
    SuperblockChange change;
    change.number = 6;
    const auto refused = run(file.update(change));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::kNoSpace);
    EXPECT_EQ(file.current().number, 5U);
    EXPECT_TRUE(run(file.update(change)));
    EXPECT_EQ(number_after_load(), 6U);
}

TEST_F(SuperblockFileTest, AFileCutShortIsCorrupt) {
    ASSERT_TRUE(raw()->set_size(kSuperblockBytes));
    EXPECT_EQ(number_after_load().error().code, Errc::kCorrupt);
}

}  // namespace
}  // namespace ublkd::store
