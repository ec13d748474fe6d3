#pragma once

#include <optional>
#include <string>

#include "lib/moelora.h"
#include "tests/io/temp_folder.h"

// What lora-convert makes of adapters with findings: each command that a finding prints is run, and
// its output judged.
namespace moelora::test {

// An adapter and its base on disk, and how they are asked about.
struct RepairCase {
  std::string name, folder;
  ValidateOptions options;

  std::string adapter() const { return folder + "/adapter"; }
  std::string out() const { return folder + "/OUT"; }
  Validation validate() const { return moelora::validate({adapter()}, options); }
};

// The folder's name is one that a shell must be told to leave alone.
RepairCase on_disk(const TempFolder& temp, const std::string& name, const Json& base_config,
                   const Json& config, const TensorMap& tensors, uint64_t max_shard_size = 0);

// What the rule breaks, broken; nullopt for an example that is no folder of readable files, or has
// no base.
std::optional<RepairCase> example_case(const TempFolder& temp, const Rule& rule);

struct Commands {
  const Rule* only = nullptr;  // of this rule's findings; null: of all
  // Run in a shell as they are printed are those of this rule's findings (null: all), and what is
  // no repair; the rest as --fix would.
  const Rule* in_shell = nullptr;
};

// Runs every lora-convert of the findings: the finding is gone then, and no error is new. Returns
// how many there were.
int check_commands(const RepairCase& of, const Validation& before, const Commands& which = {});

}  // namespace moelora::test
