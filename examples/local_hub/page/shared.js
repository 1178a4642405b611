R"page(// SPDX-License-Identifier: MIT
//
// One stream of events for all tabs, in a worker that they share: a browser opens no more than six
// connections to a host, and a stream keeps one for good.

import {Feed} from "./feed.js";

const tabs = new Set();
const feed = new Feed(new URL("../api/events", import.meta.url).href, (news) => {
  for (const tab of tabs) tab.postMessage(news);
});

addEventListener("connect", ({ports: [tab]}) => {
  tab.onmessage = ({data}) => {
    if (data === "leave") {
      tabs.delete(tab);
      if (!tabs.size) feed.close();
      return;
    }
    tabs.add(tab);
    feed.open();
    if (feed.ready) tab.postMessage(feed.everything());
  };
});
)page"
