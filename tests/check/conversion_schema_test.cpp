// conversion.json in every form we write is what schemas/conversion.schema.json says.

#include <doctest/doctest.h>

#include "lib/check/json_schema_subset.h"
#include "lib/engine/buffers.h"
#include "lib/model/base_convert.h"
#include "tests/adapter/goldens.h"

using namespace moelora;
using test::TempFolder;

namespace {

const std::string kData = MOELORA_TEST_DATA;

std::string faults(const Json& report) {
  static const Json kSchema =
      read_json_file(std::string(MOELORA_SOURCE_DIR) + "/schemas/conversion.schema.json");
  std::string out;
  for (const SchemaFault& fault : check_schema(report, kSchema))
    out += fault.path + " " + fault.message + "\n";
  return out;
}

Json written_buffers(const std::string& form, const std::string& adapter) {
  TempFolder temp;
  const BufferOptions how{form, "", {"tp-size=2"}, kData + "/gpt_oss/base", {}};
  write_buffers(plan_buffers(kData + "/gpt_oss/" + adapter, how), temp.path + "/out", {});
  return read_json_file(temp.path + "/out/conversion.json");
}

Json written_adapter(const std::string& adapter) {
  TempFolder temp;
  PlanOptions how;
  how.to = "stacked";
  how.load.base = kData + "/gpt_oss/base";
  write_conversion(plan_conversion(kData + "/gpt_oss/" + adapter, how), temp.path + "/out", {});
  return read_json_file(temp.path + "/out/conversion.json");
}

Json written_part() {
  TempFolder temp;
  BaseConversion how;
  how.in = kData + "/gpt_oss/base";
  how.out = temp.path + "/out";
  how.part = {1, 2};
  convert_base(how);
  return read_json_file(temp.path + "/out/conversion.json");
}

}  // namespace

TEST_CASE("conversion.json of adapters, dense ones too, is what its schema says") {
  CHECK(faults(written_adapter("peft_params")) == "");
  CHECK(faults(written_adapter("attention_only")) == "");
}

TEST_CASE("conversion.json of a server's buffers is what its schema says, losses included") {
  Json report = written_buffers("sglang-pool", "lora_bias");
  CHECK(report.find("losses")->items().size() == 1);
  CHECK(faults(report) == "");
  CHECK(faults(written_buffers("vllm-stacked", "attention_only")) == "");
  report.set("tp_rank", "one");
  CHECK(faults(report) != "");
}

TEST_CASE("conversion.json of a part of a base is what its schema says") {
  Json report = written_part();
  CHECK(faults(report) == "");
  report.set("part", 1);
  CHECK(faults(report) != "");
}
