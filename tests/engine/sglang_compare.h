#pragma once

#include <set>
#include <string>

#include "lib/engine/sglang/server.h"
#include "tests/engine/sglang_oracle.h"

namespace moelora::test {

// Our server against a record of the oracle: "" where they agree, else what differs.

// Whether it stops, where, with which exception and words.
std::string refusal_difference(const sglang::Server& server, const OracleRecord& record);

// Two texts of a refusal, whatever the order in which Python printed a set.
bool same_refusal_text(const std::string& ours, const std::string& theirs);

// Targets, rank, detection, and the buffers of one rank: which there are, shapes, and who reads
// them.
std::string state_difference(const sglang::Server& server, size_t rank, const Json& record);

// Labels of sglang_disagreements.txt ("LABEL: why"): where we are right not to agree.
const std::set<std::string>& sglang_disagreements();

}  // namespace moelora::test
