#pragma once

#include <ctime>
#include <string>

#include "lib/io/json.h"

namespace moelora::bench {

// What every raw result begins with: schema, command, date (UTC), device.
inline Json::Members run_record(const char* schema, int argc, char** argv,
                                const std::string& device) {
  std::string command;
  for (int i = 0; i < argc; ++i) command += (i == 0 ? "" : " ") + std::string(argv[i]);
  const std::time_t now = std::time(nullptr);
  char date[32] = {};
  std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", std::gmtime(&now));
  return {{"schema", Json(schema)},
          {"command", Json(command)},
          {"date", Json(date)},
          {"device", Json(device)}};
}

}  // namespace moelora::bench
