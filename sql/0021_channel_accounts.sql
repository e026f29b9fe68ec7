-- Engine: all. Runs in a transaction.

-- Where gateways of several accounts share the tables, each channel is taken by one of them. It is entered by the gateway
-- that takes its first message; '' is the first account, which also takes what names none that there is.
ALTER TABLE telegram.channels ADD COLUMN account text NOT NULL DEFAULT '';

COMMENT ON COLUMN telegram.channels.account IS 'the account whose gateway takes the channel; empty for the first one';
