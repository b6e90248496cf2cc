// The metadata in etcd, as the configuration says where and how. docs/metadata.md, "etcd".
#pragma once

#include <expected>
#include <memory>
#include <string>

#include "metadata/etcd/etcd_rows.h"
#include "metadata/row_service.h"
#include "ublkd/daemon/configuration.h"

namespace ublkd::daemon {

/// Whether cluster.metadata names an etcd.
bool is_in_etcd(const Configuration& configuration);
/// What is wrong with cluster.metadata as the name of one; "" where nothing is.
std::string why_no_etcd(const std::string& metadata);
/// How it is reached. An error, here and below, is one line for a person.
std::expected<metadata::EtcdOptions, std::string> etcd_options(const Configuration& configuration);
/// Nobody is connected to yet.
std::expected<std::unique_ptr<metadata::RowService>, std::string> open_etcd(
    const Configuration& configuration);

}  // namespace ublkd::daemon
